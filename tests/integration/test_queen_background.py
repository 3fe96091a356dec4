"""Chats in the background: OpenAI's chunks of a task that goes on without its client, and can be come back to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from queen_rig import CHAT, FLOW, TOKENS, Rig, chat, running_queen
from raw_client import RawConnection, request_bytes
from scripted_worker import Call, ScriptedWorker, chunk, holds
from swarmesh.wire.sse import DONE_MARK, SseEvent

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]

USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}\n\n'


async def open_stream(
    rig: Rig, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[RawConnection, str]:
    """A stream whose head is read, and the job it belongs to."""
    connection = await rig.connect()
    data = json.dumps(body).encode() if body is not None else None
    connection.send(request_bytes(method, target, data, {**rig.auth, **(headers or {})}))
    head = await connection.read_head()
    assert head.status == 200, await connection.reader.read(500)
    assert head.headers["content-type"].startswith("text/event-stream")
    return connection, head.headers["x-swarmesh-job"]


async def events_of(connection: RawConnection) -> list[SseEvent]:
    return [event async for event in connection.events()]


def told(events: list[SseEvent]) -> list[tuple[int | None, str | None]]:
    """Number and text of each chunk; None for what is no text, the end mark as itself."""
    found: list[tuple[int | None, str | None]] = []
    for event in events:
        if event.data == DONE_MARK:
            found.append((event.seq, "[DONE]"))
        else:
            choices = json.loads(event.data)["choices"]
            found.append((event.seq, choices[0]["delta"].get("content") if choices else None))
    return found


def whole(call: Call) -> None:
    call.tokens("hel", "lo")
    call.raw(chunk(USAGE))
    call.end()


async def test_a_chat_that_streams_is_a_task_in_openais_words(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    asked = chat(background=True, stream=True, seed=7, max_completion_tokens=9, priority="high")
    client, job_id = await open_stream(rig, "POST", CHAT, asked)
    role = json.loads((await client.read_chunk()).removeprefix(b"data: "))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (role["id"], role["model"], role["object"]) == (f"chatcmpl-{job_id}", "fake", "chat.completion.chunk")
    call = await worker.call()
    assert (call.body["seed"], call.body["max_tokens"], call.body["messages"]) == (7, 9, asked["messages"])
    call.tokens("hel")
    assert b'"hel"' in await client.read_chunk()  # It comes although the next is not there yet.
    call.tokens("lo")
    call.raw(chunk(USAGE))
    call.end()
    assert told(await events_of(client)) == [(2, "lo"), (None, None), (None, "[DONE]")]
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["priority"], shown["usage"]["total_tokens"]) == ("done", "high", 5)
    assert (await rig.json("GET", f"{TOKENS}/{job_id}"))["text"] == "hello"
    assert (await client.ask("GET", "/v1/models", None, rig.auth)).status == 200


async def test_openais_client_takes_it_for_a_chat(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = whole
    await rig.adopt(worker)
    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=rig.key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            **chat(stream=True, stream_options={"include_usage": True}), extra_body={"background": True}
        )
        chunks = [one async for one in stream]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5


async def test_it_goes_on_when_the_client_leaves_and_shows_the_rest_later(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    client, job_id = await open_stream(rig, "POST", CHAT, chat(background=True, stream=True))
    call = await worker.call()
    call.tokens("a", "b")
    await until(lambda: len(rig.queen._flows._flows[job_id].rows) == 2)
    client.abort()
    call.tokens("c")
    await until(lambda: len(rig.queen._flows._flows[job_id].rows) == 3)
    assert not call.gone.is_set()
    back, again = await open_stream(rig, "GET", f"{CHAT}/{job_id}", None, {"last-event-id": "1"})
    assert again == job_id
    first = await back.read_chunk()
    assert first.startswith(b"id: 2\n")
    assert b'"role"' not in first
    call.tokens("d")
    call.end()
    assert told(await events_of(back)) == [(4, "d"), (None, None), (None, "[DONE]")]
    await until(lambda: job_id not in rig.queen._flows._flows)
    for target, headers, expected in [
        (f"{CHAT}/{job_id}", None, [(None, ""), (1, "a"), (2, "b"), (3, "c"), (4, "d")]),
        (f"{CHAT}/chatcmpl-{job_id}?after=3", None, [(4, "d")]),
        (f"{CHAT}/{job_id}", {"last-event-id": "4"}, []),
    ]:
        late, _ = await open_stream(rig, "GET", target, None, headers)
        assert told(await events_of(late)) == [*expected, (None, None), (None, "[DONE]")]


async def test_the_usage_is_told_to_who_comes_back_and_asks(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = whole
    await rig.adopt(worker)
    answer = await rig.ask("POST", CHAT, chat(background=True))
    job_id = answer.json()["job_id"]
    await until(rig.is_idle)
    late, _ = await open_stream(rig, "GET", f"{CHAT}/{job_id}?after=2&include_usage=true")
    *_, usage, mark = await events_of(late)
    assert json.loads(usage.data)["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert mark.data == DONE_MARK


async def test_without_stream_it_is_accepted(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = whole
    await rig.adopt(worker)
    answer = await rig.ask("POST", CHAT, chat(background=True))
    assert (answer.status, set(answer.json())) == (202, {"job_id", "status"})
    assert answer.headers["x-swarmesh-job"] == answer.json()["job_id"]
    await until(rig.is_idle)
    assert (await rig.json("GET", f"{TOKENS}/{answer.json()['job_id']}"))["text"] == "hello"


async def test_the_same_key_is_the_same_task(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    once = {"idempotency-key": "mine"}
    asked = chat(background=True, stream=True)
    first, job_id = await open_stream(rig, "POST", CHAT, asked, once)
    call = await worker.call()
    call.tokens("x")
    second, again = await open_stream(rig, "POST", CHAT, asked, once)
    assert again == job_id
    call.end()
    both = [told(await events_of(stream)) for stream in (first, second)]
    assert both[0] == both[1] == [(None, ""), (1, "x"), (None, None), (None, "[DONE]")]
    assert len(worker.calls) == 1


async def test_it_is_still_there_after_a_restart(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = whole
    async with running_queen(tmp_path / "home") as rig:
        await rig.adopt(worker)
        job_id = (await rig.ask("POST", CHAT, chat(background=True))).json()["job_id"]
        await until(rig.is_idle)
    async with running_queen(tmp_path / "home") as rig:
        late, _ = await open_stream(rig, "GET", f"{CHAT}/{job_id}?after=1")
        assert told(await events_of(late)) == [(2, "lo"), (None, None), (None, "[DONE]")]


async def test_a_cancelled_one_ends_in_an_error(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    client, job_id = await open_stream(rig, "POST", CHAT, chat(background=True, stream=True))
    await worker.call()
    await rig.json("DELETE", f"{FLOW}/{job_id}")
    events = await events_of(client)
    assert json.loads(events[-1].data)["error"]["code"] == "cancelled"
    assert DONE_MARK not in [event.data for event in events]


@pytest.mark.parametrize(
    ("more", "status", "code", "param"),
    [
        ({"n": 2}, 400, "invalid_value", "n"),
        ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools"),
        ({"logprobs": True}, 400, "invalid_value", "logprobs"),
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
    ],
)
async def test_what_cannot_be_one_is_refused(
    rig: Rig, new_worker: NewWorker, more: dict[str, Any], status: int, code: str, param: str
) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    answer = await rig.ask("POST", CHAT, {**chat(background=True, stream=True), **more})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert not worker.calls


async def test_who_comes_back_wrongly_is_told(rig: Rig) -> None:
    unknown = await rig.ask("GET", f"{CHAT}/flow-0")
    assert (unknown.status, unknown.error["code"]) == (404, "not_found")
    nowhere = await rig.ask("GET", f"{CHAT}/flow-0?after=x")
    assert (nowhere.status, nowhere.error["param"]) == (400, "after")


async def test_a_plain_chat_with_background_false_is_no_task(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    answer = await asyncio.wait_for(rig.ask("POST", CHAT, chat(background=False)), 15)
    assert answer.status == 200
    assert not {"background"} & set((await worker.call()).body)
    assert "x-swarmesh-job" not in answer.headers
