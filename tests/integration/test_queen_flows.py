"""Nectarflows from submission to honeytokens: JSON, events, resuming, and nothing lost over a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flow_bed import done, events_of, follow, streams, submitted, texts
from queen_rig import FLOW, TOKENS, Rig, running_queen
from scripted_worker import ScriptedWorker, answers_at_once, holds
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.records import TaskRecord

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]
WHOLE = {
    "prompt": "hi",
    "modelcell": "fake",
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "stop": ["x"],
    "priority": "high",
}


async def test_a_task_from_beginning_to_end(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker)
    job_id = await submitted(rig, **WHOLE)
    call = await worker.call()
    asked = {name: WHOLE[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop")}
    assert call.body == {
        "model": "fake",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **asked,
    }
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["attempts"], shown["rustbee_id"]) == ("running", 1, worker_id)
    assert (shown["finished_at"], shown["usage"], shown["error"]) == (None, None, None)
    call.tokens("hel", "lo")
    await until(lambda: len(rig.queen._flows._flows[job_id].rows) == 2)
    tokens = await rig.json("GET", f"{TOKENS}/{job_id}")
    assert (tokens["status"], tokens["text"], tokens["last_seq"]) == ("running", "hello", 2)
    call.raw(b"%x\r\n%s\r\n" % (len(USAGE), USAGE))
    call.end()
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["modelcell"], shown["priority"]) == ("done", "fake", "high")
    assert shown["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert shown["finished_at"] >= shown["created_at"] > 1_700_000_000
    tokens = await rig.json("GET", f"{TOKENS}/{job_id}")
    assert (tokens["status"], tokens["text"], tokens["last_seq"]) == ("done", "hello", 2)
    assert tokens["usage"] == shown["usage"]


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}\n\n'


async def test_a_submission_that_streams(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    connection = await rig.connect()
    body = b'{"prompt": "hi", "stream": true}'
    connection.send(
        f"POST {FLOW} HTTP/1.1\r\nauthorization: Bearer {rig.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await connection.read_head()
    (first,) = [
        json.loads(line[6:]) for line in (await connection.read_chunk()).split(b"\n") if line.startswith(b"data")
    ]
    assert set(first) == {"job_id", "status"}
    call = await worker.call()
    call.tokens("one")
    assert await connection.read_chunk() == b'id: 1\nevent: token\ndata: {"text":"one"}\n\n'
    call.tokens("two")
    assert await connection.read_chunk() == b'id: 2\nevent: token\ndata: {"text":"two"}\n\n'
    call.end()
    (last,) = await events_of(connection)
    assert last.name == "done"
    told = json.loads(last.data)
    assert (told["job_id"], told["finish_reason"]) == (first["job_id"], "stop")
    assert told["usage"] == {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}, (
        "counted here: none was told"
    )
    assert (await connection.ask("GET", "/v1/models", None, rig.auth)).status == 200


async def test_the_classic_route_is_the_same(rig: Rig, new_worker: NewWorker) -> None:
    await rig.adopt(await new_worker())
    answer = await rig.ask("POST", "/v2/tasks", {"prompt": "hi", "modelcell": "fake"})
    assert answer.status == 202
    assert (await done(rig, answer.json()["job_id"]))["status"] == "done"


async def test_messages_go_on_as_they_are(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = await rig.ask("POST", FLOW, {"messages": messages})
    assert (await done(rig, answer.json()["job_id"]))["status"] == "done"
    assert worker.calls[0].body["messages"] == messages


async def test_input_is_not_for_an_adopted_server(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker_id = await rig.adopt(worker)
    answer = await rig.ask("POST", FLOW, {"input": {"any": ["thing"]}})
    shown = await done(rig, answer.json()["job_id"]) if answer.status == 202 else answer.json()
    assert shown["error"]["code"] == "task_refused"
    assert "type python" in shown["error"]["message"]
    assert not worker.calls
    assert (await rig.rustbee(worker_id))["status"] == "healthy"


async def test_everybody_sees_every_token_from_where_they_ask(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    job_id = await submitted(rig)
    call = await worker.call()
    call.tokens("a", "b", "c")
    await until(lambda: len(rig.queen._flows._flows[job_id].rows) == 3)
    asked = [
        await follow(rig, job_id),
        await follow(rig, job_id, "?after=2"),
        await follow(rig, job_id, headers={"last-event-id": "1"}),
        await follow(rig, job_id, "?after=3", {"last-event-id": "1"}),
        await follow(rig, job_id, "?after=4"),
    ]
    streams(call, "d", "e")
    everything = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]
    for connection, start in zip(asked, [0, 2, 1, 3, 4], strict=True):
        events = await events_of(connection)
        assert texts(events) == everything[start:]
        assert events[-1].name == "done"
    await until(rig.is_idle)
    for after, start in [("", 0), ("?after=2", 2), ("?after=5", 5), ("?after=99", 5)]:
        events = await events_of(await follow(rig, job_id, after))
        assert texts(events) == everything[start:]
        assert events[-1].name == "done"


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 16, "%20"])
async def test_a_place_that_is_none(rig: Rig, new_worker: NewWorker, after: str) -> None:
    await rig.adopt(await new_worker())
    job_id = await submitted(rig)
    answer = await rig.ask("GET", f"{TOKENS}/{job_id}?after={after}", None, {"accept": "text/event-stream"})
    assert (answer.status, answer.error["param"]) == (400, "after")
    by_header = await rig.ask("GET", f"{TOKENS}/{job_id}", None, {"accept": "text/event-stream", "last-event-id": "x"})
    assert by_header.status == 400


async def test_the_list_is_newest_first_and_can_be_filtered(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    await rig.adopt(worker, slots=1)
    first = await submitted(rig)
    await done(rig, first)
    await until(rig.is_idle)
    worker.behaviour = holds
    second, third = await submitted(rig), await submitted(rig)
    await worker.call(1)

    async def listed(query: str) -> list[str]:
        flows = (await rig.json("GET", f"/v2/swarmesh/nectarflows{query}"))["nectarflows"]
        return [flow["job_id"] for flow in flows]

    await rig.queen._flows.settle()
    assert sorted(await listed("")) == sorted([first, second, third])
    assert (await listed("?limit=1"))[0] in {second, third}
    assert await listed("?status=done") == [first]
    assert await listed("?status=running") == [second]
    assert sorted(await listed("?status=queued&status=running")) == sorted([second, third])


async def test_cancelling_in_every_state(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=1)
    running, queued = await submitted(rig), await submitted(rig)
    call = await worker.call()
    call.tokens("half")
    await until(lambda: rig.queen._flows._flows[running].rows)
    followers = [await follow(rig, running), await follow(rig, queued)]
    for job_id in (queued, running):
        assert (await rig.json("DELETE", f"{FLOW}/{job_id}"))["status"] == "cancelled"
    await call.wait_gone()
    for follower in followers:
        last = (await events_of(follower))[-1]
        assert (last.name, json.loads(last.data)["error"]["code"]) == ("error", "cancelled")
    await until(rig.is_idle)
    assert (await rig.json("GET", f"{TOKENS}/{running}"))["text"] == "half", "what was there stays"
    assert (await rig.json("DELETE", f"{FLOW}/{running}"))["status"] == "cancelled"
    assert len(worker.calls) == 1
    worker.behaviour = answers_at_once
    finished = await submitted(rig)
    await done(rig, finished)
    await until(rig.is_idle)
    assert (await rig.json("DELETE", f"{FLOW}/{finished}"))["status"] == "done", "what is over stays as it is"


async def test_the_same_idempotency_key_is_the_same_task(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    await rig.adopt(worker)

    async def submit(key: str) -> str:
        answer = await rig.ask("POST", FLOW, {"prompt": "hi"}, {"idempotency-key": key})
        assert answer.status == 202
        return str(answer.json()["job_id"])

    several = await asyncio.gather(*(submit("one") for _ in range(8)))
    assert len(set(several)) == 1
    assert await submit("two") != several[0]
    await done(rig, several[0])
    await until(rig.is_idle)
    assert await submit("one") == several[0], "also when it is over"
    assert len(worker.calls) == 2
    for key in ("", "x" * 257):
        answer = await rig.ask("POST", FLOW, {"prompt": "hi"}, {"idempotency-key": key})
        assert answer.status == 400


async def test_a_restart_finds_everything_again(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = lambda call: streams(call, "hel", "lo")
    async with running_queen(tmp_path / "home") as rig:
        worker_id, key = await rig.adopt(worker, slots=1), rig.key
        finished = await submitted(rig)
        await done(rig, finished)
        await until(rig.is_idle)
        worker.behaviour = holds
        halfway, queued, keyed = await submitted(rig), await submitted(rig), None
        answer = await rig.ask("POST", FLOW, {"prompt": "k"}, {"idempotency-key": "k"})
        keyed = answer.json()["job_id"]
        (await worker.call(1)).tokens("after")
        await until(lambda: rig.queen._flows._flows[halfway].rows)
    worker.behaviour = lambda call: streams(call, "after", "wards")
    async with running_queen(tmp_path / "home") as rig:
        assert rig.key == key
        assert (await rig.rustbee(worker_id))["modelcell"] == "fake"
        tokens = await rig.json("GET", f"{TOKENS}/{finished}")
        assert (tokens["status"], tokens["text"], tokens["last_seq"]) == ("done", "hello", 2)
        for job_id, attempts in [(halfway, 2), (queued, 1), (keyed, 1)]:
            shown = await done(rig, job_id)
            assert (shown["status"], shown["attempts"]) == ("done", attempts)
            assert (await rig.json("GET", f"{TOKENS}/{job_id}"))["text"] == "afterwards"
        again = await rig.ask("POST", FLOW, {"prompt": "k"}, {"idempotency-key": "k"})
        assert again.json() == {"job_id": keyed, "status": "done"}
        await until(rig.is_idle)
    assert [call.body["messages"][0]["content"] for call in worker.calls] == ["hi", "hi", "hi", "hi", "k"]


async def test_a_task_that_nobody_can_read_any_more_does_not_keep_a_queen_from_starting(tmp_path: Path) -> None:
    async with running_queen(tmp_path / "home") as rig:
        record = TaskRecord(
            task_id=TaskId("flow-old"),
            status="queued",
            modelcell=ModelName("fake"),
            priority="medium",
            key_id=KeyId("admin"),
            request=b'{"prompt": "hi", "a_field_of_old": 1}',
            created_at_ms=1,
        )
        await rig.queen._store.insert_task(record)
    async with running_queen(tmp_path / "home") as rig:
        shown = await rig.json("GET", f"{FLOW}/flow-old")
        assert (shown["status"], shown["error"]["code"]) == ("failed", "invalid_value")
