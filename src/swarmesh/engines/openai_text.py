"""OpenAI's text routes on top of ``execute``, for engines that have none of their own."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from swarmesh.core.errors import BadInputError, InvalidValueError
from swarmesh.engines.engine import Done, Token
from swarmesh.wire.flow import ExecuteRequest, MaxTokens, Message, StopList, StopText, Temperature

CHAT_TARGET: Final = b"/v1/chat/completions"
COMPLETION_TARGET: Final = b"/v1/completions"
MODELS_TARGET: Final = b"/v1/models"


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
    n: int = 1
    stream: bool = False
    stream_options: _StreamOptions | None = None

    def task(self) -> ExecuteRequest:
        """The same as a task."""
        return ExecuteRequest(
            prompt=self.prompt,
            messages=self.messages,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
        )


class TextFormat:
    """Renders one answer in OpenAI's shape.

    Args:
        answer_id: Its id, unique among answers.
        created_s: Unix seconds.
    """

    def __init__(self, request: TextRequest, *, chat: bool, model: str, answer_id: str, created_s: int) -> None:
        self._request = request
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        self._whole = {"id": answer_id, "object": kind, "created": created_s, "model": model}
        self._chunk = {**self._whole, "object": f"{kind}.chunk" if chat else kind}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first token."""
        return [self._streamed({"role": "assistant", "content": ""}, None)] if self._chat else []

    def token(self, token: Token) -> dict[str, Any]:
        """The chunk of one token."""
        text = shown_text(token)
        return self._streamed({"content": text} if self._chat else text, None)

    def closing(self, done: Done) -> list[dict[str, Any]]:
        """Chunks after the last token; one with the usage when it was asked for."""
        chunks = [self._streamed({} if self._chat else "", done.finish_reason)]
        options = self._request.stream_options
        if options is not None and options.include_usage:
            chunks.append({**self._chunk, "choices": [], "usage": msgspec.to_builtins(done.usage)})
        return chunks

    def answer(self, text: str, done: Done) -> dict[str, Any]:
        """The whole answer at once."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": done.finish_reason, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        return {**self._whole, "choices": [choice], "usage": msgspec.to_builtins(done.usage)}

    def _streamed(self, piece: Any, finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
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
    if request.n != 1:
        raise InvalidValueError(f"'n' is {request.n}; this rustbee gives one answer at a time", param="n")
    return msgspec.structs.replace(request, **{"prompt" if chat else "messages": None})


def shown_text(token: Token) -> str:
    """A piece as text: bytes as a data URL, a value as JSON, which is all that a chat can show of them."""
    if token.media_type:
        return f"data:{token.media_type};base64,{token.base64}"
    return token.text or ("" if token.value is None else msgspec.json.encode(token.value).decode())


def models_answer(model: str, created_s: int) -> dict[str, Any]:
    """The answer to ``GET /v1/models``."""
    card = {"id": model, "object": "model", "created": created_s, "owned_by": "swarmesh"}
    return {"object": "list", "data": [card]}
