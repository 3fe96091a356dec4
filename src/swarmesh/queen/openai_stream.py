"""Nectarflows on a server that was adopted: our submission as a chat request, its chunks as our events."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from swarmesh.core.errors import ResumeDivergedError, TaskRefusedError
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.flow import DoneData, ErrorData, Submission, TokenData, Usage
from swarmesh.wire.sse import DONE_MARK, SseEvent
from swarmesh.wire.token_counts import UNKNOWN, counted


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _UpstreamError(msgspec.Struct, frozen=True):
    message: str = ""


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(Usage, frozen=True):
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _UpstreamError | None = None


_decoder = msgspec.json.Decoder(_Chunk)


def chat_body(submission: Submission, model: str) -> bytes:
    """The chat request that says what the submission says; usage is asked for.

    Raises:
        TaskRefusedError: It has an ``input``, which only a rustbee of the user's own class understands.
    """
    if submission.input is not UNSET:
        raise TaskRefusedError("'input' needs a rustbee of type python; this modelcell is served by an OpenAI server")
    messages: object = submission.messages or [{"role": "user", "content": submission.prompt}]
    optional = {
        "max_tokens": submission.max_tokens,
        "temperature": submission.temperature,
        "top_p": submission.top_p,
        "seed": submission.seed,
        "stop": submission.stop,
    }
    return msgspec.json.encode(
        {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in optional.items() if value is not None},
        }
    )


class OpenAiStream:
    """Turns one chat stream into our events; counts tokens itself where the server tells no usage.

    Args:
        shown: Text that another server has said already; this one has to say it again, and it is left out.
    """

    def __init__(self, job_id: str, shown: str = "") -> None:
        self._job_id = job_id
        self._shown = shown
        self._finish_reason: str | None = None
        self._usage: _Usage | None = None
        self._pieces = 0

    def translate(self, event: SseEvent) -> list[SseEvent]:
        """Our events for one of theirs; ``done`` comes for their end mark."""
        if event.data == DONE_MARK:
            return [self.end()]
        chunk = _decoder.decode(event.data)
        if chunk.error is not None:
            error = ErrorData(ErrorBody("engine_error", chunk.error.message or "the server reported an error"))
            return [SseEvent(msgspec.json.encode(error), "error")]
        self._usage = chunk.usage or self._usage
        events = []
        for choice in chunk.choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.delta.content:
                self._pieces += 1
                text = self._news(choice.delta.content)
                if text:
                    events.append(SseEvent(msgspec.json.encode(TokenData(text)), "token"))
        return events

    def _news(self, text: str) -> str:
        again, self._shown = self._shown[: len(text)], self._shown[len(text) :]
        if text[: len(again)] != again:
            raise ResumeDivergedError(f"the server said {text[: len(again)]!r} where {again!r} was shown already")
        return text[len(again) :]

    @property
    def is_finished(self) -> bool:
        """The server has said why its answer ended; some say nothing after that."""
        return self._finish_reason is not None

    def end(self) -> SseEvent:
        """Our event for the end of the answer.

        Raises:
            ResumeDivergedError: What was shown before was not all said again.
        """
        if self._shown:
            raise ResumeDivergedError("the server said less than was shown already")
        told = self._usage or _Usage(0, self._pieces, self._pieces)
        usage = Usage(told.prompt_tokens, told.completion_tokens, told.total_tokens)
        details = told.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        counts = counted(told.prompt_tokens, UNKNOWN if cached is None else cached, told.completion_tokens)
        done = DoneData(self._job_id, self._finish_reason or "stop", usage)
        return SseEvent(msgspec.json.encode(done), "done", counts=counts)
