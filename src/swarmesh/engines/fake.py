"""Deterministic text without a model: what every test of relays, queues and failover can be exact about.

The text is a pure function of the conversation (and of the seed, where a temperature asks for chance). A conversation
that ends with the beginning of the assistant's own answer is continued from there, token for token.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from swarmesh.core.errors import EngineStartError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.task import Task, task_of, text_of
from swarmesh.wire.flow import ExecuteRequest, Usage

WORDS: Final = tuple(
    """amber apiary bee bloom brood buzz cell clover comb dance drone field flower forage gold hive honey larva meadow
    mead nectar nest pollen propolis queen scent sky smoke sting sun swarm thyme wax wing worker Blüte süß Bienenstöcke
    蜂 蜜 花 🐝 🍯""".split()  # noqa: SIM905 - one word per line would be forty lines
)
TOKENS_MIN: Final = 20
TOKENS_SPAN: Final = 60


class FakeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it behaves; in a worker's ``class_path``, such as ``tokens=200,tokens_per_s=50``.

    Attributes:
        tokens: Length of every answer; 0 lets the conversation decide.
        tokens_per_s: Pace of one stream; 0 is as fast as it goes.
        prefill_ms: Wait before the first token.
        start_ms: Wait before it serves.
    """

    tokens: int = 0
    tokens_per_s: float = 0.0
    prefill_ms: float = 0.0
    start_ms: float = 0.0


def read_settings(text: str) -> FakeSettings:
    """Read ``name=value`` pairs parted by commas; empty means all defaults.

    Raises:
        EngineStartError: A name or a value is none.
    """
    pairs = dict(pair.partition("=")[::2] for pair in text.split(",") if pair)
    try:
        return msgspec.convert(pairs, FakeSettings, strict=False)
    except msgspec.ValidationError as error:
        raise EngineStartError(f"the fake engine cannot be set to {text!r}: {error}") from error


def fake_tokens(conversation: str, count: int) -> list[Token]:
    """The first ``count`` tokens of the answer to a conversation; ids are the words' places in the list, from 1."""
    tokens = []
    for index in range(count):
        word_id = _draw(f"{conversation}\0{index}") % len(WORDS) + 1
        text = WORDS[word_id - 1]
        tokens.append(Token(text if index == 0 else f" {text}", (word_id,)))
    return tokens


class FakeRunner:
    """See `swarmesh.engines.task_server.TaskRunner`."""

    def __init__(self, settings: FakeSettings, *, slots: int, context_tokens: int) -> None:
        self._settings = settings
        self._slots = slots
        self._context_tokens = context_tokens

    @property
    def slots(self) -> int:
        """See `TaskRunner`."""
        return self._slots

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `TaskRunner`."""
        task = task_of(request)
        conversation, prefix = _conversation(task)
        prompt_tokens = len(f"{conversation} {prefix}".split())
        if prompt_tokens >= self._context_tokens:
            raise TaskRefusedError(f"the task has {prompt_tokens} tokens, the context {self._context_tokens}")
        length = self._settings.tokens or TOKENS_MIN + _draw(conversation) % TOKENS_SPAN
        left = _after(fake_tokens(conversation, length), prefix)
        room = self._context_tokens - prompt_tokens
        shown = left[: min(room, task.max_tokens or room)]
        pieces, stopped = _until_stop(shown, task.stop)
        await asyncio.sleep(self._settings.prefill_ms / 1000)
        for piece in pieces:
            yield piece
            if self._settings.tokens_per_s:
                await asyncio.sleep(1 / self._settings.tokens_per_s)
        whole = stopped or len(shown) == len(left)
        yield Done("stop" if whole else "length", Usage(prompt_tokens, len(pieces), prompt_tokens + len(pieces)))


def _conversation(task: Task) -> tuple[str, str]:
    # What the answer is a function of, and the part of the answer that is there already.
    messages: list[dict[str, Any]] = task.messages or [{"role": "user", "content": task.text}]
    if task.input is not None and task.messages is None and task.prompt is None:
        messages = [{"role": "user", "content": msgspec.json.encode(task.input).decode()}]
    prefix = ""
    if messages[-1].get("role") == "assistant":
        prefix = text_of(messages[-1].get("content"))
        messages = messages[:-1]
    chance = f"{task.seed}:{task.temperature}" if task.temperature else ""
    lines = [f"{message.get('role')}: {text_of(message.get('content'))}" for message in messages]
    return "\n".join([*lines, chance]), prefix


def _after(tokens: list[Token], prefix: str) -> list[Token]:
    # A prefix that is no beginning of the answer is somebody else's text; the answer then starts anew behind it.
    text = ""
    for index, token in enumerate(tokens):
        if text == prefix:
            return tokens[index:]
        text += token.text
    return [] if text == prefix else tokens


def _until_stop(tokens: list[Token], stops: tuple[str, ...]) -> tuple[list[Token], bool]:
    text = "".join(token.text for token in tokens)
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    if not ends:
        return tokens, False
    end = min(ends)
    kept: list[Token] = []
    for token in tokens:
        room = end - sum(len(piece.text) for piece in kept)
        if room <= 0:
            break
        kept.append(Token(token.text[:room], token.token_ids))
    return kept, True


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
