"""Clients that leave: the engine is told, the slot is free, and nothing is kept of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, TOKENS, Rig, chat
from scripted_worker import ScriptedWorker, answers_at_once, delta, holds

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_while_streaming(rig: Rig, new_worker: NewWorker, until: Until, how: str) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=1)
    client = await rig.start_chat(stream=True)
    call = await worker.call()
    waiting = await rig.start_chat(user="next")
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    call.tokens("one")
    await client.read_head()
    assert await client.read_chunk() == delta("one")
    worker.behaviour = answers_at_once
    client.abort() if how == "abort" else client.writer.close()
    await call.wait_gone()
    assert (await waiting.read_answer()).status == 200, "its slot went to who waited"
    await until(rig.is_idle)


async def test_before_the_first_byte(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker)
    client = await rig.start_chat()
    call = await worker.call()
    client.abort()
    await call.wait_gone()
    await until(rig.is_idle)
    assert (await rig.rustbee(worker_id))["status"] == "healthy", "it is not the worker's fault"


async def test_while_queued(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=1)
    first = await rig.start_chat(user="first")
    call = await worker.call()
    leaver = await rig.start_chat(user="leaver")
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    leaver.abort()
    await until(lambda: not len(rig.swarm.dispatcher.queue))
    assert rig.relayed == 1
    answers_at_once(call)
    assert (await first.read_answer()).status == 200
    await until(rig.is_idle)
    assert [call.body["user"] for call in worker.calls] == ["first"], "the engine never heard of it"


async def test_between_two_workers(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    first, second = await new_worker(), await new_worker()
    first.behaviour = second.behaviour = holds
    for worker in (first, second):
        await rig.adopt(worker)
    client = await rig.start_chat()
    (await first.call()).cut()
    call = await second.call()
    client.abort()
    await call.wait_gone()
    await until(rig.is_idle)


async def test_many_at_once_leave_nothing_behind(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=10)
    clients = [await rig.start_chat(stream=bool(number % 2)) for number in range(30)]
    await until(lambda: (len(worker.calls), rig.relayed) == (10, 30))
    for client in clients:
        client.abort()
    for number in range(10):
        await (await worker.call(number)).wait_gone()
    await until(rig.is_idle)
    assert len(worker.calls) <= 30
    worker.behaviour = answers_at_once
    assert (await rig.ask("POST", CHAT, chat())).status == 200


async def test_a_pipelined_request_of_a_client_that_left_is_not_started(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    client = await rig.connect()
    client.send(rig.chat_bytes(user="one") + rig.chat_bytes(user="two"))
    call = await worker.call()
    client.abort()
    await call.wait_gone()
    await until(rig.is_idle)
    assert len(worker.calls) == 1


async def test_a_nectarflow_goes_on_without_its_follower(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    client = await rig.connect()
    client.send(b"")
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi"}))["job_id"]
    head = f"GET {TOKENS}/{job_id} HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\nauthorization: Bearer {rig.key}"
    client.send(head.encode() + b"\r\n\r\n")
    await client.read_head()
    flow = rig.queen._flows._flows[job_id]
    await until(lambda: flow._followers)
    client.abort()
    await until(lambda: not flow._followers)
    answers_at_once(await worker.call())
    await until(rig.is_idle)
    assert (await rig.json("GET", f"{TOKENS}/{job_id}"))["status"] == "done"


async def test_a_nectarflow_that_is_cancelled_tells_the_engine(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi"}))["job_id"]
    call = await worker.call()
    assert (await rig.json("DELETE", f"{FLOW}/{job_id}"))["status"] == "cancelled"
    await call.wait_gone()
    await until(rig.is_idle)
