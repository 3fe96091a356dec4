"""A server's chat stream as our events."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import TaskRefusedError
from swarmesh.queen.openai_stream import OpenAiStream, chat_body
from swarmesh.wire.flow import Submission
from swarmesh.wire.sse import DONE_MARK, SseEvent


def translated(*chunks: dict[str, Any] | bytes) -> list[tuple[str, dict[str, Any]]]:
    stream = OpenAiStream("job-1")
    given = [chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() for chunk in chunks]
    events = [event for data in given for event in stream.translate(SseEvent(data))]
    return [(event.name, json.loads(event.data)) for event in events]


def chunk(text: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, "role": "assistant"}, "finish_reason": finish_reason}]}


def test_text_and_its_end() -> None:
    assert translated(chunk(""), chunk("a"), chunk(None), chunk("b"), chunk("", "length"), DONE_MARK) == [
        ("token", {"text": "a"}),
        ("token", {"text": "b"}),
        (
            "done",
            {
                "job_id": "job-1",
                "finish_reason": "length",
                "usage": {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
            },
        ),
    ]


def test_usage_is_believed_where_it_is_told() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "prompt_tokens_details": {"cached": 1}}
    ((_, done),) = translated({"choices": [], "usage": usage}, {"choices": [], "usage": None}, DONE_MARK)
    assert done["usage"] == {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    assert done["finish_reason"] == "stop"


@pytest.mark.parametrize("error", [{"message": "I am not well", "code": 500}, {}])
def test_an_error_event(error: dict[str, Any]) -> None:
    ((name, data),) = translated({"error": error})
    assert (name, data["error"]["code"]) == ("error", "engine_error")
    assert data["error"]["message"] == error.get("message", "the server reported an error")


@pytest.mark.parametrize("noise", [b"", b"{", b"[]", b'{"choices": 5}', b'{"choices": [{"delta": {"content": 1}}]}'])
def test_noise_is_an_error(noise: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        translated(noise)


def test_a_submission_as_a_chat_request() -> None:
    submission = msgspec.json.decode(b'{"prompt": "hi", "max_tokens": 5, "seed": 0, "stop": "x"}', type=Submission)
    assert json.loads(chat_body(submission, "m")) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "seed": 0,
        "stop": "x",
    }


@pytest.mark.parametrize("given", [b"1", b"null", b'{"a": []}'])
def test_an_input_has_no_form_there(given: bytes) -> None:
    with pytest.raises(TaskRefusedError, match="type python"):
        chat_body(msgspec.json.decode(b'{"input": %s}' % given, type=Submission), "m")
