"""OpenAI's text routes on top of ``execute``, for engines that have none of their own."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from swarmesh.core.errors import BadInputError
from swarmesh.engines.engine import Done, Token
from swarmesh.wire.flow import ExecuteRequest, MaxTokens, Message, StopList, StopText, Temperature, Usage
from swarmesh.wire.resume import FIELD, Resume
from swarmesh.wire.token_counts import UNKNOWN, TokenCounts

MODELS_TARGET: Final = b"/v1/models"


class ToolDelta(msgspec.Struct, frozen=True):
    """The next piece of a tool's call, as OpenAI's chunks have it."""

    call: dict[str, Any]


Piece = Token | ToolDelta | Done
"""Of one choice of a chat or completion."""


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a chat or a completion that mean something here; others are passed over, as clients expect."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=1024)] | None = None
    prompt: str | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    seed: int | None = None
    stop: StopText | StopList | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    resume: Resume | None = msgspec.field(name=FIELD, default=None)

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    def task(self) -> ExecuteRequest:
        """The same as a task; of the events that were shown, a chat's first said only whose turn it is."""
        resume = self.resume
        if resume is not None and self.messages is not None and resume.last_seq:
            resume = msgspec.structs.replace(resume, last_seq=resume.last_seq - 1)
        return ExecuteRequest(
            prompt=self.prompt,
            messages=self.messages,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
            resume=resume,
        )


class TextFormat:
    """Renders one answer in OpenAI's shape; that of a resumed one repeats what its first chunks said of it.

    Args:
        created_s: Unix seconds.
    """

    def __init__(self, request: TextRequest, *, chat: bool, model: str, answer_id: str, created_s: int) -> None:
        self._request = request
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        self._whole: dict[str, Any] = {"id": answer_id, "object": kind, "created": created_s, "model": model}
        if (resume := request.resume) is not None:
            self._whole |= {"id": resume.id, "created": resume.created, "model": resume.model}
            if resume.system_fingerprint is not None:
                self._whole["system_fingerprint"] = resume.system_fingerprint
        self._chunk = {**self._whole, "object": f"{kind}.chunk" if chat else kind}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first token, one for each choice of a chat."""
        if not self._chat or (self._request.resume is not None and self._request.resume.last_seq):
            return []
        role = {"role": "assistant", "content": ""}
        return [self._streamed(index, role, None) for index in range(self._request.choices)]

    def piece(self, index: int, piece: Token | ToolDelta) -> dict[str, Any]:
        """The chunk of one piece of a choice."""
        if isinstance(piece, ToolDelta):
            return self._streamed(index, {"tool_calls": [piece.call]}, None)
        text = shown_text(piece)
        return self._streamed(index, {"content": text} if self._chat else text, None)

    def finish(self, index: int, done: Done) -> dict[str, Any]:
        """The last chunk of a choice."""
        return self._streamed(index, {} if self._chat else "", done.finish_reason)

    def closing(self, counts: TokenCounts) -> list[dict[str, Any]]:
        """Chunks after those of all choices; one with the usage when it was asked for."""
        options = self._request.stream_options
        if options is None or not options.include_usage:
            return []
        return [{**self._chunk, "choices": [], "usage": _usage(counts)}]

    def answer(self, choices: list[list[Piece]]) -> dict[str, Any]:
        """The whole answer at once, from all pieces of each choice."""
        ends = [piece for pieces in choices for piece in pieces if isinstance(piece, Done)]
        return {
            **self._whole,
            "choices": [self._choice(index, pieces) for index, pieces in enumerate(choices)],
            "usage": _usage(counts_of(ends)),
        }

    def _choice(self, index: int, pieces: list[Piece]) -> dict[str, Any]:
        text = "".join(shown_text(piece) for piece in pieces if isinstance(piece, Token))
        calls = [piece.call for piece in pieces if isinstance(piece, ToolDelta)]
        reason = next(piece.finish_reason for piece in pieces if isinstance(piece, Done))
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
        if not self._chat:
            return {**choice, "text": text}
        if not calls:
            return {**choice, "message": {"role": "assistant", "content": text}}
        return {**choice, "message": {"role": "assistant", "content": None, "tool_calls": [_joined(calls)]}}

    def _streamed(self, index: int, piece: Any, finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "finish_reason": finish_reason, "logprobs": None}
        return {**self._chunk, "choices": [{**choice, "delta" if self._chat else "text": piece}]}


def read_request(body: bytes, *, chat: bool) -> TextRequest:
    """Read a request's body.

    Raises:
        BadInputError: It is not JSON, lacks its text, or asks for what is not had here.
    """
    try:
        request = msgspec.json.decode(body, type=TextRequest)
    except msgspec.DecodeError as error:
        raise BadInputError(f"the body cannot be read: {error}") from error
    needed = "messages" if chat else "prompt"
    if getattr(request, needed) is None:
        raise BadInputError(f"'{needed}' is missing", param=needed)
    return msgspec.structs.replace(request, **{"prompt" if chat else "messages": None})


def counts_of(ends: list[Done]) -> TokenCounts:
    """The tokens of all choices together; they have one prompt, which the first of them reads."""
    written = sum(done.usage.completion_tokens for done in ends)
    return TokenCounts(ends[0].usage.prompt_tokens, ends[0].cached_tokens, written)


def shown_text(token: Token) -> str:
    """A piece as text: bytes as a data URL, a value as JSON, which is all that a chat can show of them."""
    if token.media_type:
        return f"data:{token.media_type};base64,{token.base64}"
    return token.text or ("" if token.value is None else msgspec.json.encode(token.value).decode())


def models_answer(model: str, created_s: int) -> dict[str, Any]:
    """The answer to ``GET /v1/models``."""
    card = {"id": model, "object": "model", "created": created_s, "owned_by": "swarmesh"}
    return {"object": "list", "data": [card]}


def _usage(counts: TokenCounts) -> dict[str, Any]:
    usage = msgspec.to_builtins(Usage(counts.prompt, counts.completion, counts.prompt + counts.completion))
    return usage if counts.cached == UNKNOWN else {**usage, "prompt_tokens_details": {"cached_tokens": counts.cached}}


def _joined(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    first = {name: value for name, value in deltas[0].items() if name != "index"}
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    return {**first, "function": {**first["function"], "arguments": arguments}}
