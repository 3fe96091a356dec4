"""What a user's own class is given to work on."""

from __future__ import annotations

from typing import Any

import msgspec

from swarmesh.core.errors import BadInputError, TaskRefusedError
from swarmesh.wire.flow import ExecuteRequest


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task, as the argument of ``foragexec``. At least one of ``prompt``, ``messages``, ``input`` is there.

    Attributes:
        messages: OpenAI's form: ``{"role": …, "content": …}``.
        input: Whatever JSON value the client sent.
    """

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    input: Any = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The prompt, else the text of the last user message, else an input that is text; empty when there is none."""
        if self.prompt is not None:
            return self.prompt
        for message in reversed(self.messages or []):
            if message.get("role") == "user":
                return text_of(message.get("content"))
        return self.input if isinstance(self.input, str) else ""


def read_task(body: bytes) -> ExecuteRequest:
    """Read a task from the body of a request.

    Raises:
        BadInputError: It is none.
    """
    try:
        return msgspec.json.decode(body, type=ExecuteRequest)
    except msgspec.DecodeError as error:
        raise BadInputError(f"the task cannot be read: {error}") from error


def task_of(request: ExecuteRequest) -> Task:
    """The user's view of a request.

    Raises:
        TaskRefusedError: A message's content is not JSON.
    """
    try:
        return Task(
            prompt=request.prompt,
            messages=None if request.messages is None else msgspec.json.decode(msgspec.json.encode(request.messages)),
            input=msgspec.json.decode(request.input) if isinstance(request.input, msgspec.Raw) else None,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        )
    except msgspec.DecodeError as error:
        raise TaskRefusedError(f"the task cannot be read: {error}") from error


def text_of(content: Any) -> str:
    """The text of a message's content: itself, or that of its parts of type ``text``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(
        str(part.get("text", "")) for part in content if isinstance(part, dict) and part.get("type") == "text"
    )
