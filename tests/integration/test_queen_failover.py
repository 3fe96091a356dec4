"""Workers that fail: the client sees one good answer, or an honest end; never a part that looks whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, Rig, chat, one_bad_one_good
from scripted_worker import Behaviour, Call, ScriptedWorker, answers_at_once, chunk, completion, holds
from swarmesh.queen.refusal import REFUSAL_BYTES_MAX

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


def refuses(status: int) -> Behaviour:
    return lambda call: call.json(status, {"error": {"message": f"says {status}"}})


def half_a_refusal(call: Call) -> None:
    call.raw(b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\nnot all of it")
    call.cut()


def half_a_head(call: Call) -> None:
    call.raw(b"HTTP/1.1 200 O")
    call.cut()


def garbage(call: Call) -> None:
    call.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    call.cut()


def silence(call: Call) -> None:
    call.cut()


EARLY_FAILURES: dict[str, Behaviour] = {
    "closes": silence,
    "half a head": half_a_head,
    "garbage": garbage,
    "half a refusal": half_a_refusal,
    **{f"answers {status}": refuses(status) for status in (401, 403, 500, 502, 503, 504)},
}


@pytest.mark.parametrize("bad", EARLY_FAILURES.values(), ids=EARLY_FAILURES.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_before_the_first_byte_another_worker_answers(
    rig: Rig, new_worker: NewWorker, bad: Behaviour, until: Until, stream: int
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, bad)
    connection = await rig.connect()
    answer = await connection.ask("POST", CHAT, chat(stream=bool(stream)), rig.auth)
    assert answer.status == 200
    assert answer.headers["x-swarmesh-attempts"] == "2"
    assert (answer.body.endswith(b"data: [DONE]\n\n")) if stream else (answer.json() == completion())
    assert [call.headers["x-swarmesh-attempt"] for call in first.calls + second.calls] == ["1", "2"]
    statuses = [worker["status"] for worker in (await rig.json("GET", "/v2/swarmesh/rustbees"))["rustbees"]]
    assert statuses == ["suspect", "healthy"]
    await until(rig.is_idle)
    assert (await connection.ask("POST", CHAT, chat(), rig.auth)).headers["x-swarmesh-attempts"] == "1"


@pytest.mark.parametrize("bad", EARLY_FAILURES.values(), ids=EARLY_FAILURES.keys())
async def test_when_nobody_else_is_left_the_client_is_told(
    impatient_rig: Rig, new_worker: NewWorker, bad: Behaviour, until: Until
) -> None:
    rig, worker = impatient_rig, await new_worker()
    worker.behaviour = bad
    worker_id = await rig.adopt(worker)
    answer = await rig.ask("POST", CHAT, chat())
    assert (answer.status, answer.error["code"]) in {(502, "rustbee_lost"), (503, "no_rustbees_available")}
    assert answer.headers["x-swarmesh-rustbee"] == worker_id
    await until(rig.is_idle)
    worker.behaviour = answers_at_once
    assert (await rig.ask("POST", CHAT, chat())).status == 200, "a suspect is the last choice, not no choice"


@pytest.mark.parametrize("status", [401, 500])
async def test_an_answer_that_would_be_the_same_again_is_not_waited_for(
    rig: Rig, new_worker: NewWorker, status: int
) -> None:
    worker = await new_worker()
    worker.behaviour = refuses(status)
    await rig.adopt(worker)
    answer = await rig.ask("POST", CHAT, chat())  # The rig's patience is the real one: a minute.
    assert (answer.status, answer.error["code"]) == (502, "rustbee_lost")
    assert f"answered {status}" in answer.error["message"]
    assert len(worker.calls) == 1


async def test_an_error_that_never_ends_is_cut_short(rig: Rig, new_worker: NewWorker) -> None:
    def endless(call: Call) -> None:
        call.raw(b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n")
        call.raw(chunk(b"x" * (REFUSAL_BYTES_MAX + 1)))

    worker = await new_worker()
    worker.behaviour = endless
    await rig.adopt(worker)
    for path, body in [(CHAT, chat()), (FLOW, {"prompt": "hi", "stream": True})]:
        answer = await rig.ask("POST", path, body)
        assert b"task_refused" in answer.body


async def test_a_task_is_not_passed_around_forever(rig: Rig, new_worker: NewWorker) -> None:
    workers = [await new_worker() for _ in range(6)]
    for worker in workers:
        worker.behaviour = silence
        await rig.adopt(worker)
    answer = await rig.ask("POST", CHAT, chat())
    assert (answer.status, answer.error["code"]) == (502, "rustbee_lost")
    assert answer.headers["x-swarmesh-attempts"] == "4"
    assert sorted(len(worker.calls) for worker in workers) == [0, 0, 1, 1, 1, 1], "nobody is asked twice"


async def test_a_server_that_is_not_there_any_more(rig: Rig, new_worker: NewWorker) -> None:
    first, second = await one_bad_one_good(rig, new_worker, silence)
    await first.stop()
    assert (await rig.ask("POST", CHAT, chat())).headers["x-swarmesh-attempts"] == "2"
    assert len(second.calls) == 1


async def test_a_stale_connection_is_no_failure(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker_id = await rig.adopt(worker)
    await rig.ask("POST", CHAT, chat())
    seen: list[Call] = []

    def closes_the_first(call: Call) -> None:
        seen.append(call)
        if len(seen) == 1:
            call.cut()  # As a server does whose idle time ran out while the request was on its way.
        else:
            answers_at_once(call)

    worker.behaviour = closes_the_first
    answer = await rig.ask("POST", CHAT, chat())
    assert (answer.status, answer.headers["x-swarmesh-attempts"]) == (200, "1")
    assert (await rig.rustbee(worker_id))["status"] == "healthy"


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 501])
async def test_the_clients_own_mistake_is_passed_on_and_hurts_nobody(
    rig: Rig, new_worker: NewWorker, status: int, until: Until
) -> None:
    first, second = await one_bad_one_good(rig, new_worker, refuses(status))
    answer = await rig.ask("POST", CHAT, chat())
    assert (answer.status, answer.error["code"]) == (status, "task_refused")
    assert (answer.error["message"], answer.error["type"]) == (f"says {status}", "invalid_request_error")
    assert answer.headers["x-swarmesh-attempts"] == "1"
    workers = (await rig.json("GET", "/v2/swarmesh/rustbees"))["rustbees"]
    assert [worker["status"] for worker in workers] == ["healthy", "healthy"]
    assert (len(first.calls), len(second.calls)) == (1, 0)
    await until(rig.is_idle)


async def test_a_worker_that_is_stopped_may_finish_within_its_grace(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker)
    client = await rig.start_chat()
    call = await worker.call()
    shown = await rig.json("DELETE", f"/v2/swarmesh/rustbees/{worker_id}")
    assert shown["status"] == "draining"
    refused = await rig.ask("POST", CHAT, chat())
    assert (refused.status, refused.error["code"]) == (503, "no_rustbees_available")
    call.json(200, completion())
    assert (await client.read_answer()).status == 200
    await until(lambda: not list(rig.swarm.fleet), "it is let go at the next tick")


@pytest.mark.parametrize("bad", [silence, half_a_refusal, refuses(503), refuses(500), refuses(401), garbage])
async def test_a_nectarflow_moves_on_as_well(rig: Rig, new_worker: NewWorker, bad: Behaviour, until: Until) -> None:
    first, second = await one_bad_one_good(rig, new_worker, bad)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi"}))["job_id"]
    async with asyncio.timeout(10):
        await second.call()
    connection = await rig.connect()
    answer = await connection.ask(
        "GET", f"/v2/swarmesh/honeytokens/{job_id}", None, {**rig.auth, "accept": "text/event-stream"}
    )
    assert b"event: done" in answer.body
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["attempts"], len(first.calls)) == ("done", 2, 1)
    await until(rig.is_idle)
