"""Rows of a nectarflow as OpenAI's chunks, byte by byte, and as OpenAI's own client reads them."""

from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletionChunk

from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.flow import Usage
from swarmesh.wire.openai_chunks import ChatChunks, error_event
from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader

CHUNKS = ChatChunks("flow-1", created=1_700_000_000, model="qwen")


def read(data: bytes) -> list[SseEvent]:
    return SseReader().feed(data)


def told(data: bytes) -> list[ChatCompletionChunk]:
    """What OpenAI's client makes of the chunks; it minds what is missing or of the wrong type."""
    events = [event for event in read(data) if event.data != DONE_MARK]
    return [ChatCompletionChunk.model_validate(json.loads(event.data), strict=True) for event in events]


def test_a_row_is_an_event_with_its_number_and_its_ids() -> None:
    assert CHUNKS.text(3, "h\u00e9\n", (5, 6)) == (
        b'id: 3\n: t 5,6\ndata: {"id":"chatcmpl-flow-1","created":1700000000,"model":"qwen",'
        b'"choices":[{"delta":{"content":"h\xc3\xa9\\n"},"finish_reason":null,"index":0}],'
        b'"object":"chat.completion.chunk"}\n\n'
    )


@pytest.mark.parametrize("ids", [(), (1,)])
def test_a_row_without_text_is_an_event_all_the_same(ids: tuple[int, ...]) -> None:
    (event,) = read(CHUNKS.text(1, "", ids))
    assert (event.seq, event.token_ids) == (1, ids)
    assert told(CHUNKS.text(1, "", ids))[0].choices[0].delta.content == ""


def test_the_role_comes_without_a_number() -> None:
    (event,) = read(CHUNKS.role())
    assert event.seq is None
    (chunk,) = told(CHUNKS.role())
    assert (chunk.choices[0].delta.role, chunk.choices[0].delta.content) == ("assistant", "")
    assert (chunk.id, chunk.created, chunk.model) == ("chatcmpl-flow-1", 1_700_000_000, "qwen")


def test_the_end_without_usage() -> None:
    events = read(CHUNKS.end("length"))
    assert [event.seq for event in events] == [None, None]
    assert events[-1].data == DONE_MARK
    (chunk,) = told(CHUNKS.end("length"))
    assert (chunk.choices[0].finish_reason, chunk.choices[0].delta.content, chunk.usage) == ("length", None, None)


def test_the_end_with_usage() -> None:
    last, usage = told(CHUNKS.end("stop", Usage(3, 4, 7)))
    assert (last.choices[0].finish_reason, last.usage) == ("stop", None)
    assert usage.choices == []
    assert usage.usage is not None
    counts = (usage.usage.prompt_tokens, usage.usage.completion_tokens, usage.usage.total_tokens)
    assert counts == (3, 4, 7)


def test_an_error_is_the_last_event() -> None:
    (event,) = read(error_event(ErrorBody("rustbee_lost", "it is gone", "try again")))
    assert (event.name, event.seq) == ("", None)
    assert json.loads(event.data) == {
        "error": {
            "code": "rustbee_lost",
            "message": "it is gone",
            "hint": "try again",
            "type": "server_error",
            "param": None,
        }
    }
