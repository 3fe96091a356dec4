"""What workers say about themselves: registered, heard, alarmed, gone; on both names of every route."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import RUSTBEES, Rig
from raw_client import ask_once
from scripted_worker import ScriptedWorker, answers_at_once, chunk, holds

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]

ID = "rustbee-123"


async def say(rig: Rig, path: str, **fields: Any) -> Any:
    """A worker's report with the worker's own key."""
    answer = await ask_once(rig.url, "POST", path, {"rustbee_id": ID, **fields}, rig.worker_auth(ID))
    assert answer.status == 200, answer
    return answer.json()


async def alarms(rig: Rig) -> list[dict[str, Any]]:
    """What the list of alarms shows; they are on disk a moment after they were raised."""
    shown: list[dict[str, Any]] = (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"]
    return shown


async def register(rig: Rig, worker: ScriptedWorker, **fields: Any) -> Any:
    known = {"modelcell": "m", "location": worker.url, "backend": "cpu", "slots": 2, "status": "healthy"}
    return await say(rig, "/v2/swarmesh/rustbee", **{**known, **fields})


@pytest.mark.parametrize("path", ["/v2/swarmesh/rustbee", "/v2/nodes/register"])
async def test_a_worker_introduces_itself(rig: Rig, new_worker: NewWorker, path: str) -> None:
    worker = await new_worker()
    told = await say(rig, path, modelcell="m", location=worker.url, pid=1, engine_pid=2, slots=3, uptime_s=60)
    assert told == {"acknowledged": True, "status": "starting", "next_waggle": 2.0}
    shown = await rig.rustbee(ID)
    assert (shown["modelcell"], shown["location"], shown["slots"]) == ("m", worker.url, 3)
    assert (shown["pid"], shown["engine_pid"], shown["host"]) == (1, 2, "localhost")
    assert shown["uptime_s"] >= 60


@pytest.mark.parametrize("path", ["/v2/swarmesh/waggleproto", "/waggle"])
async def test_waggles(rig: Rig, new_worker: NewWorker, path: str) -> None:
    assert await say(rig, path) == {"acknowledged": False, "status": "unknown", "next_waggle": 1.0}
    await register(rig, await new_worker(), status="starting")
    told = await say(
        rig,
        path,
        location="mac.local",
        modelcell="m",
        load=0.5,
        vram_used=2048,
        quality=0.9,
        backend="metal",
        last_rtt_ms=3.5,
        tokens_per_s=12.0,
    )
    assert told == {"acknowledged": True, "status": "healthy", "next_waggle": 30}
    shown = await rig.rustbee(ID)
    assert (shown["vram_used"], shown["quality"], shown["load"]) == (2048, 0.9, 0.0), "load is the queen's own count"
    (waggle,) = (await rig.json("GET", "/v2/swarmesh/waggles"))["waggles"]
    assert (waggle["load"], waggle["waggle_rtt_ms"], waggle["tokens_per_s"]) == (0.5, 3.5, 12.0)
    assert waggle["waggle_age_s"] < 10


async def test_a_worker_that_is_ready_gets_the_task_that_waited(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await register(rig, worker, status="starting")
    client = await rig.start_chat(model="m")
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    assert not worker.calls
    await say(rig, "/waggle", status="healthy")
    call = await worker.call()
    assert call.headers["authorization"] == rig.worker_auth(ID)["authorization"], "the queen shows it its own key"
    answers_at_once(call)
    assert (await client.read_answer()).headers["x-swarmesh-rustbee"] == ID


async def test_a_nectarflow_goes_to_execute_and_its_events_come_back(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await register(rig, worker)
    job_id = (await rig.json("POST", "/v2/tasks", {"prompt": "hi", "max_tokens": 3}))["job_id"]
    call = await worker.call()
    assert (call.path, call.body["prompt"], call.body["max_tokens"]) == ("/execute", "hi", 3)
    assert (call.headers["x-swarmesh-task"], call.headers["x-swarmesh-attempt"]) == (job_id, "1")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    call.raw(head + chunk(b': ping\n\nid: 1\n: t 5,6\nevent: token\ndata: {"text": "a"}\n\n'))
    call.raw(chunk(b'event: token\ndata: {"text": "", "media_type": "image/png", "base64": "iVBORw=="}\n\n'))
    call.raw(chunk(b'event: token\ndata: {"text": "", "value": {"words": 2}}\n\n'))
    usage = b'"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}'
    call.raw(chunk(b'event: done\ndata: {"job_id": "x", "finish_reason": "length", %s}\n\n' % usage) + b"0\r\n\r\n")
    call.exchange.finish()
    answer = await rig.ask("GET", f"/v2/swarmesh/honeytokens/{job_id}", None, {"accept": "text/event-stream"})
    assert b'id: 1\n: t 5,6\nevent: token\ndata: {"text":"a"}\n\n' in answer.body
    assert b'"finish_reason":"length"' in answer.body
    tokens = await rig.json("GET", f"/v2/swarmesh/honeytokens/{job_id}")
    assert (tokens["text"], tokens["last_seq"], tokens["usage"]["total_tokens"]) == ("a", 3, 3)
    image, value = tokens["outputs"]
    assert (image["media_type"], image["base64"], value["value"]) == ("image/png", "iVBORw==", {"words": 2})


@pytest.mark.parametrize("base64", ["not base64!", "\u00e4", "a"])
async def test_a_worker_that_sends_nonsense_is_at_fault(
    rig: Rig, new_worker: NewWorker, until: Until, base64: str
) -> None:
    def nonsense(call: Any) -> None:
        data = json.dumps({"text": "", "media_type": "image/png", "base64": base64}, ensure_ascii=False)
        call.raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(f"event: token\ndata: {data}\n\n".encode())
        )

    first, second = await new_worker(), await new_worker()
    first.behaviour = nonsense
    await register(rig, first)
    await rig.adopt(second, model="m")
    job_id = (await rig.json("POST", "/v2/tasks", {"prompt": "hi", "modelcell": "m"}))["job_id"]
    await until(rig.is_idle)
    await rig.queen._flows.settle()
    shown = await rig.json("GET", f"/v2/swarmesh/nectarflow/{job_id}")
    assert (shown["status"], shown["attempts"]) == ("done", 2)


async def test_an_alarm_moves_its_tasks_at_once(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    first, second = await new_worker(), await new_worker()
    first.behaviour = holds
    await register(rig, first)
    client = await rig.start_chat(model="m")
    call = await first.call()
    await rig.adopt(second, model="m")
    told = await say(rig, "/callback/error", code="engine_crashed", message="signal 9")
    assert told["acknowledged"]
    answer = await client.read_answer()
    assert (answer.status, answer.headers["x-swarmesh-attempts"]) == (200, "2")
    await call.wait_gone()
    shown = await rig.rustbee(ID)
    assert (shown["status"], shown["error"]["code"], shown["error"]["message"]) == (
        "dead",
        "engine_crashed",
        "signal 9",
    )
    (alarm,) = await until(lambda: alarms(rig))
    assert (alarm["rustbee_id"], alarm["code"]) == (ID, "engine_crashed")
    await say(rig, "/waggle")
    assert (await rig.rustbee(ID))["status"] == "healthy", "who reports again is back"
    await until(rig.is_idle)


async def test_a_goodbye(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    await register(rig, await new_worker())
    answer = await ask_once(rig.url, "DELETE", f"/v2/swarmesh/rustbee/{ID}", None, rig.worker_auth(ID))
    assert (answer.status, answer.body) == (204, b"")
    await until(lambda: not list(rig.swarm.fleet))
    assert (await rig.json("GET", RUSTBEES))["rustbees"] == []
    assert (await rig.rustbee(ID))["status"] == "dead"
    assert rig.queen._driver.links.get(ID) is None


@pytest.mark.parametrize("location", ["https://x", "nowhere", "http://a b", "http://u:p@x"])
async def test_a_place_that_is_none_is_refused(rig: Rig, location: str) -> None:
    body = {"rustbee_id": ID, "modelcell": "m", "location": location}
    answer = await ask_once(rig.url, "POST", "/v2/swarmesh/rustbee", body, rig.worker_auth(ID))
    assert (answer.status, answer.error["code"]) == (400, "invalid_value")
    assert not list(rig.swarm.fleet)
