"""Clients who wait for a model that is being started hear of it, and nothing of their answer is changed by that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from queen_rig import CHAT, FLOW, TOKENS, Rig, chat, running_queen
from raw_client import Answer, RawConnection, ask_once
from scripted_worker import Call, ScriptedAgent, chat_chunk, completion, end_mark, holds, token
from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.scale_view import ActionView, ScaleKind
from swarmesh.models.catalog import Catalog
from swarmesh.queen import control_links, flow_run, relayed_answer, vigil
from swarmesh.wire.sse import SseEvent, SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
Until = Callable[..., Awaitable[Any]]

WORDS = "fake is being loaded on mac"
BUSY_WORDS = "all slots of the one rustbee with 'fake' are in use, and it is next"


class Start:
    """What the scaler says it is doing; nothing once it is ``over``."""

    def __init__(self) -> None:
        self.over = False
        self.asked = 0
        self.load_ms = 9_000

    def under_way(self, model: ModelName, _now_ms: int) -> ActionView | None:
        assert model == "fake"
        self.asked += 1
        if self.over:
            return None
        return ActionView(ScaleKind.UP, "loading", 1_500, HostName("mac"), self.load_ms, WORDS)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A queen whose clock for watched streams runs fast, and to whom nobody is silent for too long by it."""
    monkeypatch.setattr(vigil, "TICK_S", 0.01)
    for watching in (control_links, flow_run, relayed_answer):
        monkeypatch.setattr(watching, "SILENT_TICKS_MAX", 6_000)
    async with running_queen(tmp_path / "home") as running:
        yield running


@pytest.fixture
def start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Start:
    made = Start()
    monkeypatch.setattr(rig.swarm.scaler, "under_way", made.under_way)
    return made


@pytest.fixture
async def busy(rig: Rig, start: Start, new_agent: NewAgent) -> ScriptedAgent:
    """A worker with one slot, which is taken: ``calls[0]`` frees it."""
    agent = await new_agent("rustbee-1")
    agent.behaviour, agent.pings = holds, True
    await rig.register(agent, slots=1)
    await rig.start_chat()
    await agent.call()
    return agent


def free(agent: ScriptedAgent) -> None:
    agent.calls[0].json(200, completion())


def answers(call: Call) -> None:
    """A whole stream."""
    call.last(chat_chunk(1, "hello", 7, first=True), chat_chunk(2, "", finish="stop"), end_mark(3))


async def rest(client: RawConnection, read: bytes) -> bytes:
    while part := await client.read_chunk():
        read += part
    return read


async def waiting_chat(rig: Rig, **more: Any) -> tuple[RawConnection, Answer, bytes]:
    """A streaming chat whose head came before any worker."""
    client = await rig.start_chat(stream=True, **more)
    head = await client.read_head()
    return client, head, await client.read_chunk()


async def test_a_stream_begins_with_what_it_waits_for(rig: Rig, busy: ScriptedAgent, until: Until) -> None:
    client, head, read = await waiting_chat(rig)
    assert (head.status, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert head.headers["x-swarmesh-task"] == next(iter(rig.swarm.dispatcher.queue.waiting(ModelName("fake")))).task_id
    assert "x-swarmesh-rustbee" not in head.headers
    assert read == f": waiting: {WORDS}\n".encode()
    assert await client.read_chunk() == read, "again and again"
    waits = await rig.json("GET", f"/v2/swarmesh/explain/task/{head.headers['x-swarmesh-task']}")
    assert (waits["reason"], waits["words"], waits["chosen"]) == ("waiting", WORDS, None)
    free(busy)
    answers(await busy.call(1))
    read = await rest(client, read)
    assert b": x-swarmesh-rustbee: rustbee-1\n: x-swarmesh-attempts: 1\n: x-swarmesh-queue-ms: " in read
    assert [event.seq for event in SseReader().feed(read)] == [1, 2, 3]
    assert read.count(b"[DONE]") == 1
    await until(rig.is_idle)
    told = await rig.json("GET", f"/v2/swarmesh/explain/task/{head.headers['x-swarmesh-task']}")
    assert told["attempts"][0]["outcome"] == "ended"


async def test_whoever_waits_for_a_slot_gets_the_head_of_who_answers(
    rig: Rig, busy: ScriptedAgent, start: Start, until: Until
) -> None:
    start.over = True
    client = await rig.start_chat(stream=True)
    asked = start.asked
    await until(lambda: start.asked >= asked + 3)
    free(busy)
    answers(await busy.call(1))
    head = await client.read_head()
    assert head.headers["x-swarmesh-rustbee"] == "rustbee-1"
    assert b": waiting" not in await rest(client, b"")


async def test_the_unmodified_client_reads_it(rig: Rig, busy: ScriptedAgent, start: Start, until: Until) -> None:
    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=rig.key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        asked = start.asked
        free(busy)
        answers(await busy.call(1))
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert asked, "the client had its head before there was a worker"
    assert "".join(texts) == "hello"
    await until(rig.is_idle)


async def test_what_breaks_before_its_first_token_goes_on_elsewhere(
    rig: Rig, busy: ScriptedAgent, new_agent: NewAgent
) -> None:
    client, _, read = await waiting_chat(rig)
    second = await new_agent("rustbee-2")
    second.behaviour = holds
    await rig.register(second)
    call = await second.call()
    seed = call.body["seed"]
    call.events(chat_chunk(1, "one", 11, first=True))
    while b"one" not in read:
        read += await client.read_chunk()
    call.crash()
    free(busy)
    again = await busy.call(1)
    assert (again.resume is not None, again.body["seed"]) == (True, seed)
    again.last(chat_chunk(2, " two", 12), chat_chunk(3, "", finish="stop"), end_mark(4))
    read = await rest(client, read)
    assert read.count(b": x-swarmesh-rustbee: ") == 1, "as in a head: who began"
    assert [event.seq for event in SseReader().feed(read)] == [1, 2, 3, 4]


async def test_a_failure_after_the_head_is_an_event(rig: Rig, busy: ScriptedAgent) -> None:
    client, head, read = await waiting_chat(rig)
    free(busy)
    (await busy.call(1)).json(400, {"error": {"message": "too long", "type": "invalid_request_error"}})
    (event,) = SseReader().feed(await rest(client, read))
    error = json.loads(event.data)["error"]
    assert "too long" in error["message"]
    assert error["type"] == "invalid_request_error"
    told = await rig.json("GET", f"/v2/swarmesh/explain/refusal/{head.headers['x-swarmesh-task']}")
    assert (told["modelcell"], told["code"]) == ("fake", error["code"])
    client.send(rig.chat_bytes())
    (await busy.call(2)).json(200, completion())
    assert (await client.read_answer()).status == 200, "the connection lives on"


async def test_a_client_who_leaves_while_it_waits_leaves_nothing(rig: Rig, busy: ScriptedAgent, until: Until) -> None:
    client, _, _ = await waiting_chat(rig)
    client.abort()
    await until(lambda: not len(rig.swarm.dispatcher.queue))
    free(busy)
    await until(rig.is_idle)
    assert len(busy.calls) == 1


async def test_an_old_client_gets_its_stream_too(rig: Rig, busy: ScriptedAgent) -> None:
    client = await rig.connect()
    client.send(rig.chat_bytes(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    head = await client.read_head()
    assert head.headers["connection"] == "close"
    free(busy)
    answers(await busy.call(1))
    read = await client.read_to_end()
    assert read.startswith(b": waiting: ")
    assert [event.seq for event in SseReader().feed(read)] == [1, 2, 3]


@pytest.mark.parametrize("more", [{}, {"priority": "low"}])
async def test_an_answer_in_one_piece_just_waits(
    rig: Rig, busy: ScriptedAgent, until: Until, more: dict[str, Any]
) -> None:
    asking = asyncio.ensure_future(rig.ask("POST", CHAT, chat(**more)))
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    ticks = 0

    class Clock:
        def tick(self) -> None:
            nonlocal ticks
            ticks += 1

    rig.queen._vigil.add(clock := Clock())
    await until(lambda: ticks > 2 * vigil.CLIENT_PING_TICKS)
    rig.queen._vigil.remove(clock)
    free(busy)
    call = await busy.call(1)
    answers(call) if call.body.get("stream") else call.json(200, completion())
    answer = await asking
    assert answer.headers["x-swarmesh-rustbee"] == "rustbee-1"
    assert answer.json()["choices"][0]["message"]["content"] == "hello"


async def test_several_choices_wait_in_one_stream(rig: Rig, busy: ScriptedAgent) -> None:
    client, head, read = await waiting_chat(rig, n=2)
    assert head.headers["content-type"].startswith("text/event-stream")
    assert read == f": waiting: {WORDS}\n".encode()
    free(busy)
    for number in (1, 2):
        answers(await busy.call(number))
    events = SseReader().feed(await rest(client, read))
    assert events[-1].data == b"[DONE]"
    assert {json.loads(event.data)["choices"][0]["index"] for event in events[:-1]} == {0, 1}


# nectarflows


def progress_of(event: SseEvent) -> dict[str, Any]:
    assert (event.name, event.seq) == ("progress", None)
    told: dict[str, Any] = json.loads(event.data)
    return told


async def submitted(rig: Rig) -> tuple[RawConnection, AsyncIterator[SseEvent], str]:
    client = await rig.connect()
    body = json.dumps({"prompt": "hi", "modelcell": "fake", "stream": True}).encode()
    head = f"POST {FLOW} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {rig.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    client.send(head.encode() + body)
    await client.read_head()
    events = client.events()
    accepted = await anext(events)
    assert accepted.name == "accepted"
    return client, events, json.loads(accepted.data)["job_id"]


async def test_a_nectarflow_tells_its_progress(rig: Rig, busy: ScriptedAgent, start: Start) -> None:
    _, events, job_id = await submitted(rig)
    told = {
        "job_id": job_id,
        "status": "queued",
        "modelcell": "fake",
        "phase": "loading",
        "since_s": 1.5,
        "expected_s": 9.0,
        "message": WORDS,
    }
    assert progress_of(await anext(events)) == told, "at once"
    start.load_ms = 0
    while (again := progress_of(await anext(events)))["expected_s"] is not None:
        """One may have been on its way."""
    assert again == {**told, "expected_s": None}
    free(busy)
    (await busy.call(1)).last(token(1, "one", 3), token(2, " two", 4), done_event(3, job_id))
    names = [(event.name, event.seq) async for event in events if event.name != "progress"]
    assert names == [("token", 1), ("token", 2), ("done", None)]


def done_event(seq: int, job_id: str) -> bytes:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    data = json.dumps({"job_id": job_id, "finish_reason": "stop", "usage": usage})
    return f"id: {seq}\nevent: done\ndata: {data}\n\n".encode()


async def test_a_nectarflow_that_waits_for_its_keys_limit_says_so(
    rig: Rig, start: Start, new_agent: NewAgent, until: Until
) -> None:
    start.over = True
    agent = await new_agent("rustbee-1")
    agent.behaviour, agent.pings = holds, True
    await rig.register(agent, slots=4)
    made = await rig.json("POST", "/v2/swarmesh/keys", {"name": "laptop", "concurrency": 1})
    auth = {"authorization": f"Bearer {made['key']}"}
    first = await ask_once(rig.url, "POST", FLOW, {"prompt": "hi", "modelcell": "fake"}, auth)
    call = await agent.call()
    client = await rig.connect()
    body = json.dumps({"prompt": "hi", "modelcell": "fake", "stream": True}).encode()
    head = f"POST {FLOW} HTTP/1.1\r\nhost: t\r\nauthorization: {auth['authorization']}\r\n"
    client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await client.read_head()
    events = client.events()
    job_id = json.loads((await anext(events)).data)["job_id"]
    told = progress_of(await anext(events))
    words = "1 task of its key is under way, and the key may have 1 at once; one ends in about 5 s"
    assert (told["job_id"], told["phase"], told["expected_s"], told["message"]) == (job_id, "waiting", None, words)
    assert progress_of(await anext(events))["message"] == words, "again and again"
    view = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (view["status"], view["attempts"], view["waiting_because"]) == ("queued", 0, words)
    why = await rig.json("GET", f"/v2/swarmesh/explain/task/{job_id}")
    assert (why["chosen"], why["reason"], why["words"]) == (None, "waiting", words)
    assert why["would_change"] == ["fewer tasks of this key under way, or a key that may have more at once"]
    call.last(token(1, "one", 3), done_event(2, first.json()["job_id"]))
    again = await agent.call(1)
    again.last(token(1, "two", 3), done_event(2, job_id))
    assert [event.name async for event in events if event.name != "progress"] == ["token", "done"]
    assert (await rig.json("GET", f"{FLOW}/{job_id}"))["waiting_because"] is None
    await until(rig.is_idle)


async def test_whoever_comes_back_hears_of_it_too(rig: Rig, busy: ScriptedAgent, until: Until) -> None:
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    client = await rig.connect()
    lines = f"authorization: Bearer {rig.key}\r\naccept: text/event-stream\r\n"
    client.send(f"GET {TOKENS}/{job_id} HTTP/1.1\r\nhost: t\r\n{lines}\r\n".encode())
    await client.read_head()
    events = client.events()
    assert progress_of(await anext(events))["job_id"] == job_id
    await rig.json("DELETE", f"{FLOW}/{job_id}")
    assert [event.name async for event in events if event.name != "progress"] == ["error"]
    free(busy)
    await until(rig.is_idle)


async def test_nobody_is_asked_for_those_who_do_not_listen(
    rig: Rig, busy: ScriptedAgent, start: Start, until: Until
) -> None:
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    run = rig.queen._flows._runs[job_id]
    await until(lambda: run._waiting_ticks > 8)
    assert start.asked == 0
    free(busy)
    (await busy.call(1)).last(token(1, "one", 3), done_event(2, job_id))
    await until(rig.is_idle)


async def test_a_background_chat_hears_it_in_a_comment(rig: Rig, busy: ScriptedAgent) -> None:
    client = await rig.start_chat(stream=True, background=True)
    await client.read_head()
    read = await client.read_chunk()
    while b"\n\n" not in read:
        read += await client.read_chunk()
    assert read.startswith(f": waiting: {WORDS}\n".encode())
    free(busy)
    call = await busy.call(1)
    call.last(token(1, "one", 3), done_event(2, "job"))
    events = SseReader().feed(await rest(client, read))
    assert events[-1].data == b"[DONE]"
    assert not [event for event in events if event.name]


async def test_a_modelcell_that_is_only_in_the_catalog_and_one_that_is_there_no_more(rig: Rig) -> None:
    catalog = Catalog(rig.home.root)
    catalog.add_python_class("spare", "m:Class", added_at=0.0)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "spare"}))["job_id"]
    nobody = "no rustbee of 'spare' serves now, and "
    assert (await rig.json("GET", f"{FLOW}/{job_id}"))["waiting_because"] == f"{nobody}none is started by itself"
    catalog.remove("spare")
    why = await rig.json("GET", f"/v2/swarmesh/explain/task/{job_id}")
    assert why["words"] == f"{nobody}the queennode's catalog has no modelcell of that name"
    assert why["would_change"][-1] == f"no longer wanted: 'swarmesh nectarflow cancel {job_id}'"
