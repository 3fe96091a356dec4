"""One answer made of several: what the relay writes for each choice, and what the client gets of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from swarmesh.core.errors import QueueFullError, SwarmeshError
from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request
from swarmesh.queen import choices as choices_module
from swarmesh.queen.choices import ChoiceExchange, Choices, merged_usage, single_requests
from swarmesh.wire.http1 import ChunkedFramer, ResponseHead, parse_response_head
from swarmesh.wire.openai import ChatRequest, CompletionRequest
from swarmesh.wire.sse import DONE_MARK, PING, SseEvent, SseReader

R = TypeVar("R", ChatRequest, CompletionRequest)
Turn = Callable[[], Awaitable[None]]

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"X-Engine: a\r\nx-swarmesh-rustbee: rustbee-%d\r\nx-swarmesh-attempts: 1\r\n\r\n"
)
LAST = b"0\r\n\r\n"


def request_of(kind: type[R], fields: dict[str, Any]) -> R:
    return msgspec.json.decode(json.dumps(fields), type=kind)


class Client:
    """The client's side of a real exchange, and the relay's side of its choices."""

    def __init__(self, count: int, *, http_1_0: bool = False, **fields: Any) -> None:
        self.sent = b""
        self.kept_alive: bool | None = None
        request = Request("POST", b"/v1/chat/completions", [])
        request.http_1_0 = http_1_0
        self.exchange = Exchange(request, self)  # type: ignore[arg-type]
        asked = request_of(ChatRequest, {"messages": [], "n": count, **fields})
        self.choices = Choices(self.exchange, asked)
        self.parts: list[ChoiceExchange] = []
        self.requests: list[ChatRequest] = []
        self.aborted: list[int] = []
        self.paused: list[tuple[int, bool]] = []

    def write(self, data: bytes) -> None:
        assert self.kept_alive is None, "nothing is written after the end"
        self.sent += data

    def exchange_finished(self, *, keep_alive: bool) -> None:
        assert self.kept_alive is None, "an answer ends once"
        self.kept_alive = keep_alive

    def run(self, part: Exchange, request: ChatRequest) -> None:
        """What the relay does with a choice: listen to its client."""
        assert isinstance(part, ChoiceExchange)
        number = len(self.parts)
        self.parts.append(part)
        self.requests.append(request)
        part.on_abort = lambda: self.aborted.append(number)
        part.on_pause = lambda paused: self.paused.append((number, paused))

    @property
    def head(self) -> ResponseHead:
        return parse_response_head(self.sent.partition(b"\r\n\r\n")[0])

    @property
    def body(self) -> bytes:
        data = self.sent.partition(b"\r\n\r\n")[2]
        if not self.head.chunked:
            return data
        payload: list[bytes] = []
        ended = ChunkedFramer().feed(data, payload)
        assert (ended == len(data)) if self.kept_alive is not None else (ended == -1)
        return b"".join(payload)

    @property
    def events(self) -> list[SseEvent]:
        return SseReader().feed(self.body)

    def texts(self) -> list[tuple[int | None, int, str]]:
        """Event number, choice and text of each chunk that has one."""
        chunks = [(event.seq, json.loads(event.data)) for event in self.events if event.data != DONE_MARK]
        return [
            (seq, entry["index"], entry["delta"]["content"])
            for seq, chunk in chunks
            for entry in chunk.get("choices", [])
            if "content" in entry["delta"]
        ]


def begun(count: int = 3, *, stream: bool = True, **fields: Any) -> Client:
    client = Client(count, stream=stream, **fields)
    client.choices.begin(client.run)
    return client


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunk(text: str, name: str = "c-0", *, finish_reason: str | None = None, **more: Any) -> bytes:
    """One event as a rustbee sends it: numbered, with token ids."""
    entry = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    data = {"id": name, "object": "chat.completion.chunk", "created": 7, "model": f"m-{name}", "choices": [entry]}
    return framed(b"id: 9\n: t 1,2\ndata: %s\n\n" % json.dumps({**data, **more}).encode())


def usage_chunk(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return framed(b"data: %s\n\n" % json.dumps({"id": "c-0", "choices": None, "usage": usage}).encode())


def end(part: ChoiceExchange, before: bytes = b"") -> None:
    part.write(before + framed(b"data: [DONE]\n\n") + LAST)
    part.finish()


def answer(part: ChoiceExchange, body: Any, *, status: bytes = b"200 OK", headers: bytes = b"") -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    part.write(b"HTTP/1.1 %s\r\n%scontent-type: application/json\r\n" % (status, headers))
    part.write(b"x-swarmesh-rustbee: rustbee-%d\r\ncontent-length: %d\r\n\r\n" % (part.index, len(data)) + data)
    part.finish()


def completion(text: str, *, usage: tuple[int, int] | None = (3, 2), index: int = 0) -> dict[str, Any]:
    whole: dict[str, Any] = {"id": f"c-{text}", "created": 7, "model": "m"}
    whole["choices"] = [{"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    if usage is not None:
        whole["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return whole


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


# Not streamed


async def test_whole_answers_become_one_in_the_order_of_the_choices() -> None:
    client = begun(3, stream=False)
    a, b, c = client.parts
    answer(c, completion("c", usage=(3, 4)), headers=b"connection: close\r\nx-engine: c\r\n")
    answer(a, completion("a", usage=(3, 2)))
    assert client.sent == b""
    answer(b, completion("b", usage=(3, 1)))
    body = json.loads(client.body)
    told = [(entry["index"], entry["message"]["content"]) for entry in body["choices"]]
    assert told == [(0, "a"), (1, "b"), (2, "c")]
    assert (body["id"], body["created"], body["model"]) == ("c-a", 7, "m")
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
    assert client.head.header(b"x-swarmesh-rustbee") == b"rustbee-2"
    assert (client.head.header(b"x-engine"), client.head.header(b"connection")) == (b"c", None)
    assert (client.head.length, client.kept_alive) == (len(client.body), True)


async def test_half_a_usage_is_not_told() -> None:
    client = begun(2, stream=False)
    answer(client.parts[0], completion("a"))
    answer(client.parts[1], completion("b", usage=None))
    assert "usage" not in json.loads(client.body)


async def test_several_prompts_have_their_choices_one_after_another() -> None:
    client = begun(2, stream=False)
    for part, name in zip(client.parts, "ab", strict=True):
        both = completion(f"{name}0")
        both["choices"] += completion(f"{name}1", index=1)["choices"]
        answer(part, both)
    told = [(entry["index"], entry["message"]["content"]) for entry in json.loads(client.body)["choices"]]
    assert told == [(0, "a0"), (1, "b0"), (2, "a1"), (3, "b1")]


async def test_the_refusal_of_one_choice_is_the_answer() -> None:
    client = begun(3, stream=False)
    answer(client.parts[0], completion("a"))
    said = {"error": {"code": "task_refused", "message": "no"}}
    answer(client.parts[1], said, status=b"422 Unprocessable", headers=b"retry-after: 5\r\n")
    assert (client.head.status, json.loads(client.body)) == (422, said)
    assert client.head.header(b"retry-after") == b"5"
    assert client.head.header(b"x-swarmesh-rustbee") == b"rustbee-1"
    assert client.aborted == [2]
    assert client.kept_alive is True


async def test_a_whole_answer_that_is_cut_is_an_error() -> None:
    client = begun(2, stream=False)
    client.parts[0].write(b"HTTP/1.1 200 OK\r\nx-swarmesh-rustbee: r\r\ncontent-length: 9\r\n\r\n{}")
    client.parts[0].finish(keep_alive=False)
    assert (client.head.status, json.loads(client.body)["error"]["code"]) == (502, "rustbee_lost")
    assert client.head.header(b"x-swarmesh-rustbee") == b"r"


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b'{"choices": [1]}', b'{"choices": [], "usage": 1}'])
async def test_a_whole_answer_that_is_none_is_an_error(body: bytes) -> None:
    client = begun(2, stream=False)
    answer(client.parts[0], completion("a"))
    answer(client.parts[1], body)
    assert (client.head.status, json.loads(client.body)["error"]["code"]) == (502, "engine_error")


async def test_what_is_collected_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices_module, "COLLECTED_BYTES_MAX", 250)
    client = begun(2, stream=False)
    answer(client.parts[0], completion("a"))
    answer(client.parts[1], completion("b"))
    assert (client.head.status, json.loads(client.body)["error"]["code"]) == (502, "engine_error")


# The client, and the beginning


async def test_a_client_that_leaves_ends_all() -> None:
    client = begun(3)
    end(client.parts[0], STREAM_HEAD % 0 + chunk("a"))
    sent = client.sent
    client.exchange.aborted()
    assert client.aborted == [1, 2]
    client.parts[1].write(STREAM_HEAD % 1 + chunk("b"))
    client.parts[2].finish(keep_alive=False)
    assert client.sent == sent


async def test_a_slow_client_holds_all_up_also_who_begins_later() -> None:
    client = begun(2)
    a, b = client.parts
    client.exchange.writing_paused(True)
    assert client.paused == [(0, True), (1, True)]
    b.write(STREAM_HEAD % 1)
    assert client.paused[2:] == [(1, True)]
    client.exchange.writing_paused(False)
    a.write(STREAM_HEAD % 0)
    assert client.paused[3:] == [(0, False), (1, False)]


async def test_after_one_is_refused_no_other_begins() -> None:
    client = Client(3)

    def full_at_the_second(part: Exchange, request: ChatRequest) -> None:
        client.run(part, request)
        if len(client.parts) == 2:
            part.fail(QueueFullError("full", retry_after_s=4))

    client.choices.begin(full_at_the_second)
    assert (client.head.status, client.head.header(b"retry-after")) == (429, b"4")
    assert (len(client.parts), client.aborted) == (2, [0])


async def test_a_beginning_that_fails_is_an_answer() -> None:
    client = Client(2)

    def refuses(part: Exchange, request: ChatRequest) -> None:
        raise SwarmeshError("not today")

    client.choices.begin(refuses)
    assert (client.head.status, json.loads(client.body)["error"]["message"]) == (500, "not today")


# Requests and usage


def test_each_choice_is_asked_for_with_a_seed_of_its_own() -> None:
    asked = request_of(ChatRequest, {"messages": [], "n": 3, "seed": 2**63 - 2, "model": "m", "stop": "x"})
    singles = single_requests(asked)
    assert [one.seed for one in singles] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert [one.choices() for one in singles] == [1, 1, 1]
    assert b'"n"' not in msgspec.json.encode(singles[0])
    assert all((one.model, one.stop) == ("m", "x") for one in singles)
    singles[0].model = "other"
    assert (singles[1].model, asked.model, asked.n) == ("m", "m", 3)


@pytest.mark.parametrize("seed", [{}, {"seed": None}])
def test_who_gives_no_seed_gets_fresh_ones(seed: dict[str, None]) -> None:
    asked = request_of(CompletionRequest, {"prompt": "x", "n": 16, **seed})
    seeds = [one.seed for one in single_requests(asked)]
    assert len(set(seeds)) == 16
    assert all(isinstance(one, int) and 0 <= one < 2**31 for one in seeds)


def test_usage_keeps_what_is_shared() -> None:
    told = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    first = {
        **told,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    assert merged_usage([first, told]) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
