"""``n`` above 1 from the client's request to its one answer, each choice on whichever rustbee is free."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from queen_rig import CHAT, Rig, chat, running_queen
from raw_client import RawConnection
from scripted_worker import SSE_HEAD, Call, ScriptedWorker, chunk, completion, holds
from swarmesh.wire.sse import DONE_MARK, SseEvent

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


def says(call: Call, *texts: str, name: str = "c", usage: tuple[int, int] | None = None, ends: bool = True) -> None:
    """A stream with everything that OpenAI's client reads."""
    if not call.exchange.started:
        call.raw(SSE_HEAD)
    envelope = {"id": name, "object": "chat.completion.chunk", "created": 5, "model": "m"}
    for number, text in enumerate(texts, start=1):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        data = json.dumps({**envelope, "choices": [choice]}).encode()
        call.raw(chunk(b"id: %d\n: t %d\ndata: %s\n\n" % (number, number, data)))
    if ends:
        last = [{**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
        if usage is not None:
            total = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
            last.append({**envelope, "choices": [], "usage": total})
        call.raw(b"".join(chunk(b"data: %s\n\n" % json.dumps(one).encode()) for one in last))
        call.raw(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        call.exchange.finish()


def texts(events: list[SseEvent]) -> dict[int, str]:
    """The text of each choice."""
    found: dict[int, str] = {}
    for event in events:
        for choice in json.loads(event.data).get("choices", []) if event.data != DONE_MARK else []:
            found[choice["index"]] = found.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return found


async def in_order(worker: ScriptedWorker, count: int) -> list[Call]:
    """So many choices as they were asked for, on connections of their own; their request named a seed."""
    calls = [await worker.call(number) for number in range(count)]
    return sorted(calls, key=lambda call: int(call.body["seed"]))


async def events_of(connection: RawConnection) -> list[SseEvent]:
    await connection.read_head()
    return [event async for event in connection.events()]


async def test_openais_client_gets_its_choices_from_two_rustbees(rig: Rig, new_worker: NewWorker) -> None:
    workers = [await new_worker(), await new_worker()]

    def tells_its_seed(call: Call) -> None:
        says(call, "seed ", str(call.body["seed"]), name=f"c-{call.body['seed']}", usage=(7, 2))

    for worker in workers:
        worker.behaviour = tells_its_seed
        await rig.adopt(worker, slots=2)
    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=rig.key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            **chat(n=4, seed=40, stream=True, stream_options={"include_usage": True})
        )
        chunks = [one async for one in stream]
    said: dict[int, str] = {}
    for one in chunks:
        for choice in one.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
    assert said == {index: f"seed {40 + index}" for index in range(4)}
    assert len({one.id for one in chunks}) == 1
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 8)
    assert sorted(len(worker.calls) for worker in workers) == [2, 2]
    assert all("n" not in call.body for worker in workers for call in worker.calls)
    assert rig.is_idle()


async def test_choices_come_as_they_are_made(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    worker_id = await rig.adopt(worker)
    client = await rig.start_chat(stream=True, n=2, seed=1)
    first, second = await in_order(worker, 2)
    assert first.body["seed"] != second.body["seed"]
    says(second, "b1", ends=False)
    head = await client.read_head()
    assert head.headers["x-swarmesh-rustbee"] == worker_id
    assert head.headers["content-type"].startswith("text/event-stream")
    assert b'"b1"' in await client.read_chunk()
    says(first, "a1")
    says(second, "b2")
    events = [event async for event in client.events()]
    assert sorted(texts(events).items()) == [(0, "a1"), (1, "b2")]
    assert [event.seq for event in events] == list(range(2, 2 + len(events)))
    assert events[-1].data == DONE_MARK
    await until(rig.is_idle)
    assert (await client.ask("GET", "/v1/models", None, rig.auth)).status == 200


async def test_whole_answers_become_one(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    asked = asyncio.ensure_future(rig.ask("POST", CHAT, chat(n=2, priority="high", seed=1)))
    first, second = await in_order(worker, 2)
    second.json(200, completion("two"))
    first.json(200, completion("one"))
    answer = await asked
    assert [choice["message"]["content"] for choice in answer.json()["choices"]] == ["one", "two"]
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1]
    assert answer.headers["x-swarmesh-attempts"] == "1"
    assert not {"n", "priority"} & set(first.body)


async def test_plain_completions_too(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = lambda call: call.json(200, {"choices": [{"index": 0, "text": "x"}, {"index": 1, "text": "y"}]})
    await rig.adopt(worker)
    answer = await rig.ask("POST", "/v1/completions", {"model": "fake", "prompt": ["a", "b"], "n": 2})
    told = [(choice["index"], choice["text"]) for choice in answer.json()["choices"]]
    assert told == [(0, "x"), (1, "x"), (2, "y"), (3, "y")]


async def test_a_choice_waits_for_a_slot_while_the_stream_goes_on(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = lambda call: says(call, "x")
    await rig.adopt(worker, slots=1)
    client = await rig.start_chat(stream=True, n=3)
    assert texts(await events_of(client)) == {0: "x", 1: "x", 2: "x"}


async def test_each_choice_has_its_own_failover(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    broken, sound = await new_worker(), await new_worker()
    broken.behaviour = sound.behaviour = holds
    ids = {id(worker): await rig.adopt(worker, slots=1) for worker in (broken, sound)}
    client = await rig.start_chat(stream=True, n=2, seed=1)
    falls, stays = await broken.call(), await sound.call()
    says(falls, "one ", "two ", ends=False)
    says(stays, "uno ", ends=False)
    head = await client.read_head()
    assert head.headers["x-swarmesh-rustbee"] in ids.values()
    shown = b""
    while shown.count(b"data:") < 3:
        shown += await client.read_chunk()
    falls.cut()
    says(stays, "dos")
    again = await sound.call(1)
    assert again.body["seed"] == falls.body["seed"]
    says(again, "one ", "two ", "three")
    events = [event async for event in client.events()]
    moved, other = (0, 1) if falls.body["seed"] == 1 else (1, 0)
    assert texts(events) == {moved: "three", other: "dos"}
    assert events[-1].data == DONE_MARK
    await until(rig.is_idle)


@pytest.mark.parametrize("stream", [True, False])
async def test_one_refusal_is_the_answer_and_the_others_end(
    rig: Rig, new_worker: NewWorker, until: Until, *, stream: bool
) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    asked = asyncio.ensure_future(rig.ask("POST", CHAT, chat(n=3, stream=stream)))
    calls = [await worker.call(number) for number in range(3)]
    calls[1].json(400, {"error": {"message": "not like this"}})
    answer = await asked
    assert (answer.status, answer.error["code"], answer.error["message"]) == (400, "task_refused", "not like this")
    await calls[0].wait_gone()
    await calls[2].wait_gone()
    await until(rig.is_idle)


async def test_a_client_that_leaves_ends_every_choice(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=2)
    client = await rig.start_chat(stream=True, n=3)
    calls = [await worker.call(number) for number in range(2)]
    says(calls[0], "x", ends=False)
    await client.read_head()
    client.abort()
    for call in calls:
        await call.wait_gone()
    await until(rig.is_idle)
    assert len(worker.calls) == 2


async def test_a_full_queue_refuses_all_or_nothing(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    async with running_queen(tmp_path / "home", queue_max_per_key=1) as rig:
        worker = await new_worker()
        worker.behaviour = holds
        await rig.adopt(worker, slots=1)
        answer = await rig.ask("POST", CHAT, chat(n=3))
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        await until(rig.is_idle)
