"""Streams of adopted servers that break: another says it again, and what was shown is left out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, Rig, chat, one_bad_one_good, running_queen
from raw_client import RawConnection, request_bytes
from scripted_worker import SSE_HEAD, Behaviour, Call, ScriptedWorker, chunk, completion, delta, holds
from swarmesh.core.events import WorkerWaggled
from swarmesh.core.ids import WorkerId
from swarmesh.queen import foreign, relayed_answer, vigil
from swarmesh.wire.sse import PING, SseEvent, SseReader

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


def refuses(status: int) -> Behaviour:
    return lambda call: call.json(status, {"error": {"message": f"says {status}"}})


def repeats(*texts: str) -> Behaviour:
    def says(call: Call) -> None:
        call.tokens(*texts)
        call.end()

    return says


def texts_of(events: list[SseEvent]) -> str:
    chunks = [json.loads(event.data) for event in events if event.data != b"[DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def error_of(event: SseEvent) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(event.data)["error"]
    return error


async def read_events(connection: RawConnection) -> list[SseEvent]:
    return [event async for event in connection.events()]


PARTS: dict[str, bytes] = {
    "between events": b"",
    "in a chunk": b"5\r\nda",
    "in a chunk's length": b"5",
    "in an event": chunk(delta("two")[:-1]),
    "in the next event of a chunk": chunk(delta("two") + b"data: {")[:-2],
    "before a chunk's end": chunk(delta("two"))[:-1],
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
async def test_a_stream_that_breaks_anywhere_is_gone_on_with(
    rig: Rig, new_worker: NewWorker, part: bytes, until: Until
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = repeats("o", "ne", "two", "three")
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.tokens("one")
    head = await client.read_head()
    assert await client.read_chunk() == delta("one")
    call.raw(part)
    call.cut()
    events = await read_events(client)
    assert texts_of(events) == "twothree", "what was shown is not shown again, and no part of an event ever"
    assert [event.seq for event in events] == [2, 3, 4, 5]
    assert (events[-1].data, json.loads(events[-2].data)["choices"][0]["finish_reason"]) == (b"[DONE]", "stop")
    assert (head.headers["x-swarmesh-attempts"], second.calls[0].headers["x-swarmesh-attempt"]) == ("1", "2")
    assert (await client.ask("POST", CHAT, chat(), rig.auth)).status == 200, "the connection lives on"
    await until(rig.is_idle)


@pytest.mark.parametrize("says", [("other",), ("on",), ("one", "two")], ids=["other", "less", "less than both"])
async def test_another_server_that_says_something_else_is_not_believed(
    rig: Rig, new_worker: NewWorker, says: tuple[str, ...], until: Until
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = repeats(*says)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.tokens("one", "two", "three")
    await client.read_head()
    for text in ("one", "two", "three"):
        assert await client.read_chunk() == delta(text)
    call.cut()
    (event,) = await read_events(client)
    assert error_of(event)["code"] == "resume_diverged"
    await until(rig.is_idle)
    assert (await rig.ask("POST", CHAT, chat())).status == 200


async def test_when_nobody_else_is_left_a_stream_waits_and_then_says_so(
    impatient_rig: Rig, new_worker: NewWorker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "TICK_S", 0.01)  # From the next tick on, which comes half a second after the start.
    rig, worker = impatient_rig, await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    client = await rig.start_chat(stream=True)
    call = await worker.call()
    call.tokens("one")
    await client.read_head()
    assert await client.read_chunk() == delta("one")
    await worker.stop()
    chunks = [part async for part in chunks_of(client)]
    assert error_of(SseEvent(chunks[-1].removeprefix(b"data: ")))["code"] == "no_rustbees_available"
    assert all(said == PING or said.startswith(b": waiting: ") for said in chunks[:-1])
    await until(rig.is_idle)
    assert (await client.ask("GET", "/v1/models", None, rig.auth)).status == 200, "the connection lives on"
    await worker.start()


async def chunks_of(connection: RawConnection) -> AsyncIterator[bytes]:
    while part := await connection.read_chunk():
        yield part


async def test_a_client_that_waits_is_pinged(
    tmp_path: Path, new_worker: NewWorker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "TICK_S", 0.005)
    async with running_queen(tmp_path / "home") as rig:
        worker = await new_worker()
        worker.behaviour = holds
        worker_id = await rig.adopt(worker)
        client = await rig.start_chat(stream=True)
        call = await worker.call()
        call.tokens("one")
        await client.read_head()
        assert await client.read_chunk() == delta("one")
        assert await client.read_chunk() == PING, "also while a server that promises no signs of life says nothing"
        call.cut()
        waits = 0
        while waits < 2:
            if (said := await client.read_chunk()) != PING:  # One may have been on its way when the stream was cut.
                assert said.startswith(b": waiting: "), "and what it waits for"
                waits += 1
        worker.behaviour = repeats("one", "two")
        assert (await rig.rustbee(worker_id))["status"] == "suspect"
        monkeypatch.setattr(foreign, "PROBE_INTERVAL_S", 0.02)
        rig.queen._driver.post(WorkerWaggled(WorkerId(worker_id), True, 0.0, 0, 1.0, 0, 4))
        rest = b"".join([part async for part in chunks_of(client)])
        assert delta("two")[:-2] not in rest
        assert b'"two"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        await until(rig.is_idle)


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"{}\n\n"),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 900\r\n\r\n" + delta("one"),
    ],
    ids=["known length", "no event stream", "events of a known length"],
)
async def test_what_is_no_stream_is_kept_back_until_it_is_whole(
    rig: Rig, new_worker: NewWorker, part: bytes, until: Until
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    client = await rig.start_chat()
    call = await first.call()
    call.raw(part)
    call.cut()
    answer = await client.read_answer()
    assert (answer.json(), answer.headers["x-swarmesh-attempts"]) == (completion(), "2")
    assert len(second.calls) == 1
    await until(rig.is_idle)


async def test_a_long_answer_that_was_begun_and_breaks_is_cut(
    rig: Rig, new_worker: NewWorker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayed_answer, "WHOLE_BYTES_MAX", 1000)
    first, second = await one_bad_one_good(rig, new_worker, holds)
    client = await rig.start_chat()
    call = await first.call()
    call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n{" + b" " * 1500)
    await client.read_head()
    call.cut()
    assert len(await client.read_to_end()) == 1501
    assert not second.calls
    await until(rig.is_idle)


@pytest.mark.parametrize("head", [SSE_HEAD, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"])
async def test_an_http_1_0_client_keeps_its_stream_too(
    rig: Rig, new_worker: NewWorker, until: Until, head: bytes
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = repeats("one", "two")
    client = await rig.connect()
    body = json.dumps(chat(stream=True)).encode()
    asked = f"POST {CHAT} HTTP/1.0\r\nauthorization: Bearer {rig.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    client.send(asked.encode() + body)
    call = await first.call()
    shown = delta("one") + b"data: {"
    call.raw(head + (chunk(shown) if head is SSE_HEAD else shown))
    assert "content-length" not in (await client.read_head()).headers
    assert await client.reader.readexactly(len(delta("one"))) == delta("one")
    call.cut()
    rest = await client.read_to_end()
    events = SseReader().feed(rest)
    assert texts_of(events) == "two"
    assert rest.endswith(b"data: [DONE]\n\n")
    await until(rig.is_idle)


@pytest.mark.parametrize("ending", [b"", b"0\r\n\r\n"], ids=["until the close", "in chunks"])
async def test_a_stream_that_ends_without_its_end_mark_is_not_whole(
    rig: Rig, new_worker: NewWorker, until: Until, ending: bytes
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = repeats("one", "two")
    client = await rig.start_chat(stream=True)
    call = await first.call()
    if ending:
        call.tokens("one")
    else:  # As a server of HTTP/1.0 does; killed, it ends the stream just as well.
        call.raw(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + delta("one"))
    await client.read_head()
    assert await client.read_chunk() == delta("one")
    call.raw(ending)
    call.cut()
    events = await read_events(client)
    assert (texts_of(events), events[-1].data) == ("two", b"[DONE]")
    assert len(second.calls) == 1
    await until(rig.is_idle)


@pytest.mark.parametrize(
    "last",
    [
        chunk(delta("", "stop")),
        chunk(delta("", "stop") + b"data: [DO") + chunk(b"NE]\n\n"),
        chunk(delta("", "stop") + b"data: [DONE]\n\n"),
        chunk(delta("", "stop") + b"data: [DONE]"),
        chunk(b'data: {"error": {"message": "I am not well", "code": "theirs"}}\n\n'),
    ],
    ids=["a finish reason", "a mark in two chunks", "a mark", "a mark without a blank line", "an error"],
)
async def test_a_stream_that_has_said_how_it_ends_is_over(
    rig: Rig, new_worker: NewWorker, until: Until, last: bytes, turn: Callable[[], Awaitable[None]]
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.tokens("one")
    await client.read_head()
    assert await client.read_chunk() == delta("one")
    call.raw(last)
    await turn()
    call.raw(b"0\r\n\r\n")
    call.exchange.finish()
    body = b"".join([part async for part in chunks_of(client)])
    assert b"theirs" in body if b"error" in last else body.rstrip().endswith(b"data: [DONE]")
    assert body.count(b"[DONE]") <= 1
    assert not second.calls
    await until(rig.is_idle)
    assert (await client.ask("POST", CHAT, chat(), rig.auth)).status == 200


async def test_usage_that_was_not_told_yet_is_told_by_the_next(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}\n\n'

    def with_usage(call: Call) -> None:
        call.tokens("one")
        call.raw(chunk(delta("", "stop")) + chunk(usage) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        call.exchange.finish()

    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = with_usage
    client = await rig.start_chat(stream=True, stream_options={"include_usage": True})
    call = await first.call()
    call.tokens("one")
    call.raw(chunk(delta("", "stop")))
    await client.read_head()
    assert [await client.read_chunk() for _ in range(2)]
    call.cut()
    events = await read_events(client)
    assert [json.loads(event.data)["choices"] for event in events[:-1]] == [[]]
    assert json.loads(events[0].data)["usage"]["total_tokens"] == 4
    assert events[-1].data == b"[DONE]"
    await until(rig.is_idle)


async def test_of_several_prompts_none_is_forgotten(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    def part(index: int, text: str, finish: str | None = None) -> bytes:
        return (
            b"data: %s\n\n"
            % json.dumps({"choices": [{"index": index, "text": text, "finish_reason": finish}]}).encode()
        )

    whole = [part(0, "a", "stop"), part(1, "b"), part(1, "", "stop")]

    def both(call: Call) -> None:
        call.raw(SSE_HEAD + b"".join(map(chunk, [*whole, b"data: [DONE]\n\n"])) + b"0\r\n\r\n")
        call.exchange.finish()

    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = both
    client = await rig.connect()
    body = json.dumps({"model": "fake", "prompt": ["x", "y"], "stream": True}).encode()
    client.send(request_bytes("POST", "/v1/completions", body, rig.auth))
    call = await first.call()
    call.raw(SSE_HEAD + chunk(whole[0]))
    await client.read_head()
    assert await client.read_chunk() == whole[0]
    call.cut()
    events = await read_events(client)
    choices = [json.loads(event.data)["choices"][0] for event in events[:-1]]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(1, "b"), (1, "")]
    assert (len(second.calls), events[-1].data) == (1, b"[DONE]")
    await until(rig.is_idle)


async def test_a_refusal_of_what_another_began_is_not_the_clients_mistake(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    third = await new_worker()
    second.behaviour, third.behaviour = refuses(400), repeats("one", "two")
    await rig.adopt(third)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.tokens("one")
    await client.read_head()
    assert await client.read_chunk() == delta("one")
    call.cut()
    assert texts_of(await read_events(client)) == "two"
    assert (len(second.calls), len(third.calls)) == (1, 1)
    await until(rig.is_idle)


async def test_garbage_in_what_was_shown_ends_the_stream(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.raw(SSE_HEAD + chunk(b"data: {no chunk\n\n"))
    await client.read_head()
    await client.read_chunk()
    call.cut()
    (event,) = await read_events(client)
    assert (error_of(event)["code"], second.calls) == ("rustbee_lost", [])
    statuses = [worker["status"] for worker in (await rig.json("GET", "/v2/swarmesh/rustbees"))["rustbees"]]
    assert statuses == ["suspect", "healthy"], "it is not the fault of who was to go on"
    await until(rig.is_idle)


@pytest.mark.parametrize("odd", [b"[]", b'{"choices": [{"index": "x", "delta": []}]}', b'{"choices": {"a": 1}}', b"7"])
async def test_any_json_instead_of_a_chunk_brings_nobody_down(
    rig: Rig, new_worker: NewWorker, until: Until, odd: bytes
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = repeats("one", "two")
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.raw(SSE_HEAD + chunk(b"data: %s\n\n" % odd))
    await client.read_head()
    await client.read_chunk()
    call.cut()
    assert await read_events(client)
    await until(rig.is_idle)


async def test_a_stream_whose_worker_is_stopped_moves_on_at_once(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    first, second = await one_bad_one_good(rig, new_worker, holds)
    second.behaviour = repeats("one", "two")
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.tokens("one")
    worker_id = (await client.read_head()).headers["x-swarmesh-rustbee"]
    assert await client.read_chunk() == delta("one")
    await rig.json("DELETE", f"/v2/swarmesh/rustbees/{worker_id}?grace_s=0")
    await call.wait_gone()
    assert texts_of(await read_events(client)) == "two"
    await until(rig.is_idle)
    await until(lambda: len(list(rig.swarm.fleet)) == 1)


async def test_a_worker_that_is_stopped_mid_stream_and_was_the_last_breaks_it_honestly(
    impatient_rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    rig, worker = impatient_rig, await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker)
    client = await rig.start_chat(stream=True)
    call = await worker.call()
    call.tokens("one")
    await client.read_head()
    assert await client.read_chunk() == delta("one")
    await rig.json("DELETE", f"/v2/swarmesh/rustbees/{worker_id}?grace_s=0")
    (event,) = await read_events(client)
    assert error_of(event)["code"] in {"no_rustbees_available", "rustbee_lost"}
    await call.wait_gone()
    await until(rig.is_idle)
    await until(lambda: not list(rig.swarm.fleet))
