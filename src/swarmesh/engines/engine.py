"""What a worker runs: one model behind one small interface (R-25)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from swarmesh.engines.engine_exit import EngineExit
from swarmesh.engines.openai_dialect import OpenAiDialect
from swarmesh.net.address import Address
from swarmesh.wire.flow import ExecuteRequest, Usage
from swarmesh.wire.http1 import Headers
from swarmesh.wire.spec import Backend
from swarmesh.wire.token_counts import UNKNOWN, TokenCounts


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine turned out to be once it had started.

    Attributes:
        slots: Tasks it runs at once.
        context_tokens: Longest prompt plus answer of one slot; 0 when it knows no tokens.
        backend: What it computes on, whatever was asked for.
        pid: Its process.
    """

    slots: int
    context_tokens: int
    backend: Backend
    pid: int


class Token(msgspec.Struct, frozen=True):
    """The next piece of an answer: text with its token ids, bytes of a media type, or a JSON value."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    media_type: str = ""
    base64: str = ""
    value: Any = None


class Done(msgspec.Struct, frozen=True):
    """The answer is whole; ``finish_reason`` is ``stop`` or ``length``.

    Attributes:
        cached_tokens: Of the prompt, those it did not have to read again; -1 when it does not know.
    """

    finish_reason: str
    usage: Usage
    cached_tokens: int = UNKNOWN

    @property
    def counts(self) -> TokenCounts:
        """What the queen is told beside the answer."""
        return TokenCounts(self.usage.prompt_tokens, self.cached_tokens, self.usage.completion_tokens)


EngineEvent = Token | Done


class EngineDoor(msgspec.Struct, frozen=True):
    """Where an engine takes OpenAI's routes, and the headers (its key) that open it.

    Attributes:
        dialect: How its streams are made to tell token ids and to be resumed; None when they do both by themselves.
    """

    address: Address
    headers: Headers
    dialect: OpenAiDialect | None = None


class Engine(Protocol):
    """One engine process. Only its agent talks to it."""

    async def start(self) -> EngineInfo:
        """Start and wait until it serves. Raises EngineStartError with its last words when it does not."""

    async def stop(self) -> None:
        """End the process and take its socket away; harmless when it has ended."""

    @property
    def pid(self) -> int:
        """The process, 0 before it was started."""

    @property
    def door(self) -> EngineDoor | None:
        """For OpenAI's routes; None when it has none."""

    async def healthy(self) -> bool:
        """Whether its main loop still turns. A socket that accepts proves nothing, so it asks for work's state."""

    async def canary(self) -> bool:
        """Whether it still does a little work that is asked of it; what cannot be asked for any tells its health."""

    def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """Run a task: any number of `Token`, then one `Done`. Closing the generator frees the slot.

        Raises:
            TaskRefusedError: The task itself is at fault; no other engine would take it.
            EngineDiedError: The engine broke off.
        """

    def kill(self) -> None:
        """End a process that does not turn any more; `wait_exit` returns as after any other end."""

    def memory_mib(self) -> int:
        """Resident memory of its processes, MiB."""

    def cpu_s(self) -> float:
        """Processor time that its processes have used so far, seconds."""

    def suspended(self) -> bool:
        """Whether a signal has stopped its process."""

    async def wait_exit(self) -> EngineExit:
        """Wait until the process has ended, by itself or not; how it ended and its last words."""
