"""Several streams that become one: what the relay writes for each choice, and what the client gets of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from choices_bed import LAST, STREAM_HEAD, Client, answer, begun, chunk, completion, end, framed
from swarmesh.core.errors import QueueFullError
from swarmesh.wire.sse import DONE_MARK, PING, SseEvent

Turn = Callable[[], Awaitable[None]]


def usage_chunk(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return framed(b"data: %s\n\n" % json.dumps({"id": "c-0", "choices": None, "usage": usage}).encode())


# Streamed


async def test_streams_become_one_as_they_come() -> None:
    client = begun(3)
    a, b, c = client.parts
    b.write(STREAM_HEAD % 1)
    assert (client.head.header(b"x-swarmesh-rustbee"), client.head.header(b"x-engine")) == (b"rustbee-1", b"a")
    assert [name for name, _ in client.head.headers].count(b"content-type") == 1
    b.write(chunk("b1", "c-1", system_fingerprint="fp-1"))
    a.write(STREAM_HEAD % 0 + chunk("a1", "c-0", system_fingerprint="fp-0"))
    c.write(STREAM_HEAD % 2 + chunk("c1", "c-2") + chunk("c2", "c-2"))
    b.write(chunk("b2", "c-1"))
    assert client.texts() == [(1, 1, "b1"), (2, 0, "a1"), (3, 2, "c1"), (4, 2, "c2"), (5, 1, "b2")]
    end(b)
    end(a)
    assert client.kept_alive is None
    c.write(chunk("", "c-2", finish_reason="length"))
    end(c)
    assert client.kept_alive is True
    chunks = [json.loads(event.data) for event in client.events[:-1]]
    assert {(one["id"], one["created"], one["model"], one["system_fingerprint"]) for one in chunks} == {
        ("c-1", 7, "m-c-1", "fp-1")
    }
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert client.events[-1] == SseEvent(DONE_MARK, seq=7)
    assert not any(event.token_ids for event in client.events)
    assert client.body.count(DONE_MARK) == 1
    assert not client.aborted


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_streams_may_be_cut_anywhere(size: int) -> None:
    client = begun(2, stream_options={"include_usage": True})
    for part in client.parts:
        whole = STREAM_HEAD % part.index + chunk("x\n") + framed(PING) + chunk("y\u00e9")
        whole += usage_chunk(3, 2) + framed(b"data: [DONE]\n\n") + LAST
        for start in range(0, len(whole), size):
            part.write(whole[start : start + size])
        part.finish()
    assert client.texts() == [(1, 0, "x\n"), (2, 0, "y\u00e9"), (3, 1, "x\n"), (4, 1, "y\u00e9")]
    assert client.kept_alive is True


@pytest.mark.parametrize(
    ("asked", "told", "expected"),
    [
        (True, [(3, 2), (3, 5)], {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}),
        (True, [(3, 2), None], None),
        (False, [(3, 2), (3, 5)], None),
    ],
)
async def test_the_usage_is_told_once(
    *, asked: bool, told: list[tuple[int, int] | None], expected: dict[str, int] | None
) -> None:
    client = begun(2, stream_options={"include_usage": asked})
    for part, usage in zip(client.parts, told, strict=True):
        part.write(STREAM_HEAD % part.index + chunk("x", usage=None))
        end(part, usage_chunk(*usage) if usage is not None else b"")
    chunks = [json.loads(event.data) for event in client.events if event.data != DONE_MARK]
    assert [one.get("usage") for one in chunks] == [None, None] + ([expected] if expected is not None else [])
    if expected is not None:
        assert (chunks[-1]["choices"], chunks[-1]["id"]) == ([], "c-0")
    assert [event.seq for event in client.events] == list(range(1, len(client.events) + 1))


async def test_the_error_of_one_choice_ends_the_stream(turn: Turn) -> None:
    client = begun(3)
    a, b, _ = client.parts
    a.write(STREAM_HEAD % 0 + chunk("a1"))
    error = b'{"error":\ndata: {"code": "engine_crashed", "message": "gone"}}'
    b.write(STREAM_HEAD % 1 + chunk("b1", "c-1") + framed(b"data: %s\n\n" % error))
    assert client.kept_alive is True
    assert client.body.endswith(b'data: {"error":{"code":"engine_crashed","message":"gone"}}\n\n')
    shown = [json.loads(event.data)["choices"] for event in client.events[:-1]]
    assert [choices[0]["delta"]["content"] for choices in shown] == ["a1", "b1"]
    assert sorted(client.aborted) == [0, 2]
    a.write(chunk("a2"))
    b.write(LAST)
    a.finish()
    b.finish()
    await turn()
    assert sorted(client.aborted) == [0, 1, 2], "what failed is cancelled too, but not under its own hands"


async def test_a_choice_whose_relay_is_done_with_it_is_not_cancelled(turn: Turn) -> None:
    client = begun(2)
    a, _ = client.parts
    a.write(STREAM_HEAD % 0 + framed(b'data: {"error": {}}\n\n') + LAST)
    a.on_abort = None
    await turn()
    assert client.aborted == [1]


async def test_a_choice_that_is_cut_is_an_error_and_no_silent_end() -> None:
    client = begun(2)
    a, b = client.parts
    end(b, STREAM_HEAD % 1 + chunk("b"))
    a.write(STREAM_HEAD % 0 + chunk("a") + b"1")
    a.finish(keep_alive=False)
    assert json.loads(client.events[-1].data)["error"]["code"] == "rustbee_lost"
    assert DONE_MARK not in client.body
    assert client.kept_alive is True


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/2 what\r\n\r\n",
        b"x" * 20_000,
        STREAM_HEAD % 1 + b"zz\r\n",
        STREAM_HEAD % 1 + framed(b"data: {\n\n"),
        STREAM_HEAD % 1 + framed(b"data: []\n\n"),
        STREAM_HEAD % 1 + framed(b'data: {"choices": 5}\n\n'),
        STREAM_HEAD % 1 + framed(b'data: {"choices": [{"index": "a"}]}\n\n'),
        STREAM_HEAD % 1 + framed(b'data: {"choices": [], "usage": {"prompt_tokens": "a"}}\n\n'),
        STREAM_HEAD % 1 + framed(b"data: %s\n\n" % (b"[" * 100_000)),
    ],
)
@pytest.mark.parametrize("shown", [True, False])
async def test_garbage_is_an_error(garbage: bytes, turn: Turn, *, shown: bool) -> None:
    client = begun(2)
    a, b = client.parts
    if shown:
        a.write(STREAM_HEAD % 0 + chunk("a"))
    b.write(garbage)
    if b"event-stream" in client.sent:
        error = json.loads(client.events[-1].data)["error"]
    else:
        assert client.head.status == 502
        error = json.loads(client.body)["error"]
    assert error["code"] == "engine_error"
    await turn()
    assert sorted(client.aborted) == [0, 1]


async def test_a_refusal_after_the_beginning_is_an_event() -> None:
    client = begun(2)
    a, b = client.parts
    a.write(STREAM_HEAD % 0)
    b.fail(QueueFullError("full"), [(b"x-swarmesh-rustbee", b"")])
    assert json.loads(client.events[-1].data)["error"]["code"] == "queue_full"
    assert client.aborted == [0]


async def test_streams_and_whole_answers_do_not_mix() -> None:
    client = begun(2)
    a, b = client.parts
    answer(a, completion("a"))
    end(b, STREAM_HEAD % 1 + chunk("b"))
    assert json.loads(client.events[-1].data)["error"]["code"] == "engine_error"


async def test_pings_pass_when_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    client = begun(2)
    now_s = 100.0
    monkeypatch.setattr(client.choices, "_loop", type("Clock", (), {"time": staticmethod(lambda: now_s)}))
    a, b = client.parts
    a.write(STREAM_HEAD % 0 + chunk("a"))
    b.write(STREAM_HEAD % 1 + framed(PING))
    assert PING not in client.body
    now_s += 1.0
    a.write(framed(PING))
    b.write(framed(PING))
    assert client.body.count(PING) == 1
    now_s += 0.5
    b.write(chunk("b") + framed(PING))
    now_s += 0.6
    a.write(framed(PING))
    assert client.body.count(PING) == 1
    assert client.texts() == [(1, 0, "a"), (2, 1, "b")]


async def test_an_http_1_0_client_gets_plain_bytes() -> None:
    client = Client(2, stream=True, http_1_0=True)
    client.choices.begin(client.run)
    assert not any(part.request.http_1_0 for part in client.parts)
    for part in client.parts:
        end(part, STREAM_HEAD % part.index + chunk("x"))
    assert (client.head.chunked, client.head.header(b"connection")) == (False, b"close")
    assert client.texts() == [(1, 0, "x"), (2, 1, "x")]
    assert client.kept_alive is False
