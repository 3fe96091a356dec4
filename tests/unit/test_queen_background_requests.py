"""A chat request as a durable task's submission, what is too much for one, and where a follower goes on."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import BadInputError, InvalidValueError
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.net.request import Request
from swarmesh.queen.awaited_answers import after_seq
from swarmesh.queen.background import OpenAiDialect, submission_of
from swarmesh.store.records import TaskRecord, TokenRow
from swarmesh.wire.flow import Submission
from swarmesh.wire.openai import ChatRequest
from swarmesh.wire.openai_chunks import ChatChunks
from swarmesh.wire.sse import DONE_MARK, SseReader

HI = [{"role": "user", "content": "hi"}]


def made(**fields: Any) -> tuple[Submission, dict[str, Any]]:
    """The submission of a request, and its JSON as a restarted queen would read it."""
    request = msgspec.json.decode(json.dumps({"messages": HI, **fields}), type=ChatRequest)
    submission, body = submission_of(request)
    assert msgspec.json.decode(body, type=Submission) == submission
    return submission, json.loads(body)


def test_everything_a_plain_chat_can_say() -> None:
    said = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x"], "priority": "high", "stream": True}
    submission, body = made(model="qwen", max_tokens=5, user="me", stream_options={"include_usage": True}, **said)
    assert body == {"messages": HI, "modelcell": "qwen", "max_tokens": 5, **said}
    assert (submission.priority, submission.stream, submission.modelcell) == (Priority.HIGH, True, "qwen")


def test_what_is_not_said_stays_unsaid() -> None:
    _, body = made(temperature=None, stop=None, max_tokens=None, seed=None)
    assert body == {"messages": HI, "modelcell": "", "stream": False}


@pytest.mark.parametrize(
    ("limits", "expected"), [({"max_tokens": 5}, 5), ({"max_tokens": 5, "max_completion_tokens": 7}, 7)]
)
def test_the_newer_name_of_the_limit_wins(limits: dict[str, int], expected: int) -> None:
    assert made(**limits)[0].max_tokens == expected


def test_parts_of_a_message_go_on_as_they_are() -> None:
    parts = [{"type": "text", "text": "h\u00e9"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    _, body = made(messages=[{"role": "user", "content": parts, "name": None}])
    assert body["messages"][0]["content"] == parts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function"}]),
        ("tool_choice", {"type": "function"}),
        ("parallel_tool_calls", True),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("repeat_penalty", 1.1),
        ("logit_bias", {"5": 1}),
        ("top_k", 40),
        ("min_p", 0.05),
        ("reasoning_effort", "low"),
        ("chat_template_kwargs", {"enable_thinking": False}),
    ],
)
def test_what_has_no_counterpart_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidValueError, match=f"plain chat.*'{field}'") as raised:
        made(**{field: value})
    assert raised.value.param == field
    assert field in raised.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "top_logprobs": 0, "presence_penalty": 0.0, "frequency_penalty": 0},
        {"tools": [], "tool_choice": "none", "logit_bias": {}, "response_format": {"type": "text"}},
        {"n": None, "tools": None, "tool_choice": None, "response_format": None, "repeat_penalty": 1.0},
    ],
)
def test_defaults_may_be_spelled_out(fields: dict[str, Any]) -> None:
    assert made(**fields)[1] == {"messages": HI, "modelcell": "", "stream": False}


@pytest.mark.parametrize(
    ("more", "field"),
    [({"tool_calls": [{"id": "1"}]}, "tool_calls"), ({"name": "ann"}, "name"), ({"tool_call_id": "1"}, "tool_call_id")],
)
def test_a_message_that_is_more_than_text_is_named(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValueError, match=field) as raised:
        made(messages=[*HI, {"role": "assistant", "content": "x", **more}])
    assert raised.value.param == f"messages[1].{field}"


@pytest.mark.parametrize("messages", [None, [], "hi", [5], [{"role": "user"}], [{"content": "x"}]])
def test_messages_that_are_none(messages: Any) -> None:
    with pytest.raises(BadInputError):
        made(messages=messages)


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        (b"", None, 0),
        (b"?after=7", None, 7),
        (b"", b"9", 9),
        (b"?after=7", b"9", 7),
        (b"?after=0", b"9", 0),
        (b"?after=", b"9", 9),
        (b"?other=1", None, 0),
    ],
)
def test_where_a_follower_goes_on(query: bytes, header: bytes | None, expected: int) -> None:
    headers = [(b"last-event-id", header)] if header is not None else []
    assert after_seq(Request("GET", b"/v1/chat/completions/x" + query, headers)) == expected


@pytest.mark.parametrize("query", [b"?after=-1", b"?after=x", b"?after=1.5", b"?after=9999999999999999"])
def test_what_is_no_place_to_go_on(query: bytes) -> None:
    with pytest.raises(InvalidValueError, match="sequence number"):
        after_seq(Request("GET", b"/" + query, []))


def record(**fields: Any) -> TaskRecord:
    known = {"task_id": TaskId("flow-1"), "modelcell": ModelName("qwen"), "key_id": KeyId("k"), "request": b"{}"}
    return TaskRecord(**{**known, "status": "done", "priority": "high", "created_at_ms": 1_700_000_000_999, **fields})


def chunks(data: bytes) -> list[Any]:
    return [event.data if event.data == DONE_MARK else json.loads(event.data) for event in SseReader().feed(data)]


def dialect(*, tells_usage: bool = False) -> OpenAiDialect:
    return OpenAiDialect(ChatChunks("flow-1", created=1_700_000_000, model="qwen"), tells_usage=tells_usage)


def test_a_record_as_chunks() -> None:
    ended = record(prompt_tokens=3, completion_tokens=4, finish_reason="length")
    spoken = dialect(tells_usage=True)
    role, row, last, usage, mark = chunks(
        spoken.opening(ended) + spoken.token(TokenRow(1, "a", (5,))) + spoken.closing(ended)
    )
    told = [(one["id"], one["created"], one["model"]) for one in (role, row, last, usage)]
    assert set(told) == {("chatcmpl-flow-1", 1_700_000_000, "qwen")}
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert row["choices"][0]["delta"] == {"content": "a"}
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert mark == DONE_MARK


def test_the_usage_is_told_only_when_asked() -> None:
    last, mark = chunks(dialect().closing(record(prompt_tokens=3, completion_tokens=4)))
    assert (last["choices"][0]["finish_reason"], mark) == ("stop", DONE_MARK)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "failed", "error_code": "rustbee_lost", "error_message": "gone"}, "rustbee_lost"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_a_task_that_failed_ends_in_its_error_without_an_end_mark(fields: dict[str, Any], code: str) -> None:
    (error,) = chunks(dialect().closing(record(**fields)))
    assert error["error"]["code"] == code
