"""The relay at work: who gets a request, in which order, within which limits, and what the client sees of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, Rig, chat, running_queen
from scripted_worker import Call, ScriptedWorker, completion, delta, holds

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]


async def test_a_burst_is_spread_evenly_over_equals(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    workers = [await new_worker(), await new_worker()]
    for worker in workers:
        worker.behaviour = holds
        await rig.adopt(worker, slots=32)
    clients = [await rig.start_chat() for _ in range(32)]
    await until(lambda: sum(len(worker.calls) for worker in workers) == 32)
    assert [len(worker.calls) for worker in workers] == [16, 16]
    for worker in workers:
        for call in worker.calls:
            call.json(200, completion())
    for client in clients:
        assert (await client.read_answer()).status == 200
    await until(rig.is_idle)


async def test_quick_requests_one_after_another_take_turns(rig: Rig, new_worker: NewWorker) -> None:
    workers = [await new_worker(), await new_worker()]
    ids = [await rig.adopt(worker) for worker in workers]
    connection = await rig.connect()
    served = [(await connection.ask("POST", CHAT, chat(), rig.auth)).headers["x-swarmesh-rustbee"] for _ in range(10)]
    assert Counter(served) == dict.fromkeys(ids, 5)


async def test_who_waits_is_served_by_priority_then_in_order(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=1)
    clients = [await rig.start_chat(user="first")]
    await worker.call(0)
    order = [("low", "l1"), ("medium", "m1"), ("high", "h1"), ("low", "l2"), ("high", "h2"), ("medium", "m2")]
    for depth, (priority, name) in enumerate(order, start=1):
        clients.append(await rig.start_chat(user=name, priority=priority))
        await until(lambda depth=depth: len(rig.swarm.dispatcher.queue) == depth)
    health = await rig.json("GET", "/v2/swarmesh/health")
    assert (health["queue_depth"], health["streams"]) == (6, 7)
    for number in range(len(clients)):
        (await worker.call(number)).json(200, completion())
    assert [call.body["user"] for call in worker.calls] == ["first", "h1", "h2", "m1", "m2", "l1", "l2"]
    assert all("priority" not in call.body for call in worker.calls)
    waited = [int((await client.read_answer()).headers["x-swarmesh-queue-ms"]) for client in clients]
    assert waited[0] == 0
    await until(rig.is_idle)


async def test_slots_bound_what_a_worker_gets(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker, slots=2)
    clients = [await rig.start_chat() for _ in range(3)]
    await until(lambda: (len(rig.swarm.dispatcher.queue), len(worker.calls)) == (1, 2))
    shown = await rig.rustbee(worker_id)
    assert (shown["slots"], shown["slots_busy"], shown["load"]) == (2, 2, 1.0)
    for number in range(3):
        (await worker.call(number)).json(200, completion())
    for client in clients:
        assert (await client.read_answer()).status == 200
    assert (await rig.rustbee(worker_id))["slots_busy"] == 0


async def test_a_stream_arrives_token_by_token(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker)
    client = await rig.start_chat(stream=True)
    call = await worker.call()
    call.tokens("one")
    head = await client.read_head()
    assert head.headers["content-type"].startswith("text/event-stream")
    assert (head.headers["x-engine"], head.headers["x-swarmesh-rustbee"]) == ("scripted", worker_id)
    assert head.headers["x-swarmesh-attempts"] == "1"
    assert await client.read_chunk() == delta("one")
    call.tokens("two")  # It comes although the next is not there yet.
    assert await client.read_chunk() == delta("two")
    call.end()
    events = [event.data async for event in client.events()]
    assert events[-1] == b"[DONE]"


async def test_what_the_engine_gets(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker(["its-own-name"])
    asked = {"type": "openai", "modelcell": "ours", "url": worker.url, "api_key": "sk-theirs"}
    await rig.json("POST", "/v2/swarmesh/rustbees", asked)
    await rig.ask("POST", CHAT, chat(model="ours", temperature=0.5, slot_id=7), {"x-secret": "mine"})
    call = await worker.call()
    assert call.body == {"model": "its-own-name", "messages": chat()["messages"], "temperature": 0.5}
    assert call.headers["authorization"] == "Bearer sk-theirs"
    assert call.headers["x-swarmesh-attempt"] == "1"
    assert not {"x-secret"} & set(call.headers)
    assert rig.key not in str(call.headers)


async def test_the_default_model_is_whoever_serves(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    assert (await rig.ask("POST", CHAT, {"messages": []})).status == 200
    assert (await worker.call()).body["model"] == "fake"


@pytest.mark.parametrize(("path", "field"), [("/v1/completions", "prompt"), ("/v1/embeddings", "input")])
async def test_the_other_routes_of_the_relay(rig: Rig, new_worker: NewWorker, path: str, field: str) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    answer = await rig.ask("POST", path, {"model": "fake", field: "text"})
    assert answer.json() == completion()
    assert ((await worker.call()).path, worker.calls[0].body) == (path, {"model": "fake", field: "text"})


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the close",
        b"HTTP/1.0 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\nuntil the close",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nf\r\nuntil the close\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\nuntil the close",
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_every_framing_of_a_worker_for_every_client(
    rig: Rig, new_worker: NewWorker, answer: bytes, version: str
) -> None:
    def says(call: Call) -> None:
        call.raw(answer)
        call.cut()

    worker = await new_worker()
    worker.behaviour = says
    await rig.adopt(worker)
    connection = await rig.connect()
    got = await connection.ask("POST", CHAT, chat(), rig.auth, version=version)
    assert (got.status, got.body) == (200, b"until the close")
    assert got.headers["x-swarmesh-attempts"] == "1"
    if version == "1.0":
        assert "transfer-encoding" not in got.headers
        assert await connection.read_to_end() == b""
    else:
        assert (await connection.ask("GET", "/v1/models", None, rig.auth)).status == 200


async def test_an_http_1_0_client_gets_a_stream_without_chunks(rig: Rig, new_worker: NewWorker) -> None:
    await rig.adopt(await new_worker())
    connection = await rig.connect()
    got = await connection.ask("POST", CHAT, chat(stream=True), rig.auth, version="1.0")
    assert got.body == delta("hel") + delta("lo") + delta("", "stop") + b"data: [DONE]\n\n"


async def test_more_streams_than_there_may_be(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    async with running_queen(tmp_path / "home", streams_max=2) as rig:
        worker = await new_worker()
        worker.behaviour = holds
        await rig.adopt(worker, slots=1)
        clients = [await rig.start_chat()]
        await worker.call()
        clients.append(await rig.start_chat())
        await until(lambda: rig.relayed == 2)
        refused = await rig.ask("POST", CHAT, chat())
        assert (refused.status, refused.error["code"]) == (503, "too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
        for number, client in enumerate(clients):
            (await worker.call(number)).json(200, completion())
            assert (await client.read_answer()).status == 200
        worker.behaviour = lambda call: call.json(200, completion())
        assert (await rig.ask("POST", CHAT, chat())).status == 200


async def test_more_waiting_than_one_key_may_have(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    async with running_queen(tmp_path / "home", queue_max_per_key=1) as rig:
        worker = await new_worker()
        worker.behaviour = holds
        await rig.adopt(worker, slots=1)
        for waiting in range(2):
            await rig.start_chat()
            await until(lambda waiting=waiting: len(rig.swarm.dispatcher.queue) == waiting)
        for path, body in [(CHAT, chat()), ("/v2/swarmesh/nectarflow", {"prompt": "hi"})]:
            refused = await rig.ask("POST", path, body, {"idempotency-key": "once"})
            assert (refused.status, refused.error["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) > 0
            assert "1 task of this key waits already" in refused.error["message"]
        assert rig.relayed == 2
        kept = await rig.json("GET", "/v2/swarmesh/nectarflows")
        assert kept == {"nectarflows": []}, "what was refused has not used up its idempotency key"


async def test_a_slow_client_holds_back_its_own_stream_only(
    rig: Rig, new_worker: NewWorker, until: Until, turn: Turn
) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    slow, quick = await rig.start_chat(stream=True, user="slow"), await rig.start_chat(stream=True, user="quick")
    calls = {call.body["user"]: call for call in [await worker.call(0), await worker.call(1)]}
    held_back: list[bool] = []
    calls["slow"].exchange.on_pause = held_back.append
    calls["quick"].tokens("first")
    await quick.read_head()
    sent = 0
    while not held_back:  # Until the queen stops reading, which fills every buffer on the way.
        calls["slow"].tokens("x" * 60_000)
        sent += 1
        await turn()
        assert sent < 5000
    assert await quick.read_chunk() == delta("first")
    calls["quick"].tokens("second")
    assert await quick.read_chunk() == delta("second")
    calls["slow"].end()
    calls["quick"].end()
    await slow.read_head()
    texts = [event.data async for event in slow.events()]
    assert len(texts) == sent + 2
    await until(rig.is_idle)


async def test_two_streams_of_one_connection_come_one_after_the_other(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    client = await rig.connect()
    client.send(rig.chat_bytes(stream=True) + rig.chat_bytes() + rig.chat_bytes(stream=True))
    bodies = [(await client.read_answer()).body for _ in range(3)]
    assert [b"[DONE]" in body for body in bodies] == [True, False, True]
