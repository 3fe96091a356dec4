"""A stream of chunks as one answer."""

from __future__ import annotations

from typing import Any

import msgspec

from swarmesh.wire.sse import DONE_MARK, SseEvent
from swarmesh.wire.transcript import Transcript
from swarmesh.wire.whole_answer import whole_answer

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "f"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def read(*chunks: dict[str, Any]) -> Transcript:
    transcript = Transcript()
    for chunk in chunks:
        transcript.add(SseEvent(msgspec.json.encode({**HEAD, **chunk})))
    transcript.add(SseEvent(DONE_MARK))
    return transcript


def delta(finish_reason: str | None = None, /, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]}


def test_a_chat() -> None:
    seen = read(
        delta(role="assistant", content=None),
        delta(content="Hel"),
        delta(content="lo"),
        delta("stop"),
        {"choices": [], "usage": USAGE},
    )
    assert whole_answer(seen, chat=True) == {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_tool_calls_are_put_together() -> None:
    opened = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "look", "arguments": ""}}
    seen = read(
        delta(role="assistant", tool_calls=[opened]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        delta("tool_calls"),
    )
    message = whole_answer(seen, chat=True)["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}],
    }


def test_a_plain_completion() -> None:
    pieces = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("a", "b")]
    seen = read(*pieces, {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    answer = whole_answer(seen, chat=False)
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"}]
    assert "usage" not in answer
