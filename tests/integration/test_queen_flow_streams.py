"""Streams behind nectarflows that break, dawdle or fall silent, and those who follow them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flow_bed import events_of, follow, streams, submitted, texts
from queen_rig import FLOW, TOKENS, Rig, running_queen
from scripted_worker import Call, ScriptedWorker, answers_at_once, chunk, delta, holds
from swarmesh.core.refusals import MOVES_MAX
from swarmesh.queen import flows, foreign
from swarmesh.wire.sse import PING

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


@pytest.fixture
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "PROBE_INTERVAL_S", 0.02)


@pytest.mark.usefixtures("_quick_probes")
async def test_a_stream_that_breaks_after_a_token_is_tried_again_and_goes_on(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    def breaks_once(call: Call) -> None:
        if len(worker.calls) == 1:
            call.tokens("half")
            call.cut()
        else:
            streams(call, "ha", "lf and", " all")

    worker = await new_worker()
    worker.behaviour = breaks_once
    await rig.adopt(worker)
    job_id = await submitted(rig)
    events = await events_of(await follow(rig, job_id))
    assert texts(events) == [(1, "half"), (2, " and"), (3, " all")]
    assert events[-1].name == "done"
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["attempts"]) == ("done", 2)


@pytest.mark.usefixtures("_quick_probes")
async def test_another_text_than_what_was_shown_fails_the_task_and_keeps_what_was(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    def breaks_once(call: Call) -> None:
        if len(worker.calls) == 1:
            call.tokens("half")
            call.cut()
        else:
            streams(call, "something else")

    worker = await new_worker()
    worker.behaviour = breaks_once
    await rig.adopt(worker)
    job_id = await submitted(rig)
    events = await events_of(await follow(rig, job_id))
    assert texts(events) == [(1, "half")]
    assert (events[-1].name, json.loads(events[-1].data)["error"]["code"]) == ("error", "resume_diverged")
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["error"]["code"]) == ("failed", "resume_diverged")
    assert (await rig.json("GET", f"{TOKENS}/{job_id}"))["text"] == "half"


@pytest.mark.usefixtures("_quick_probes")
@pytest.mark.parametrize(
    "ending",
    [
        b"0\r\n\r\n",
        chunk(b'data: {"x\n\n'),
        chunk(b"data: [1, 2, 3]\n\n"),
        chunk(b'data: {"error": {"message": "I am not well"}}\n\n'),
    ],
    ids=["no end mark", "no JSON", "wrong JSON", "an error event"],
)
async def test_a_stream_without_a_proper_end_is_never_a_success(
    rig: Rig, new_worker: NewWorker, until: Until, ending: bytes
) -> None:
    def breaks(call: Call) -> None:
        call.tokens("half")
        call.raw(ending)
        call.cut()

    worker = await new_worker()
    worker.behaviour = breaks
    await rig.adopt(worker)
    job_id = await submitted(rig)
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["error"]["code"]) == ("failed", "rustbee_lost")
    assert shown["attempts"] == len(worker.calls) == MOVES_MAX + 1
    assert (await rig.json("GET", f"{TOKENS}/{job_id}"))["text"] == "half"


async def test_a_slow_follower_waits_by_itself(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker)
    job_id = await submitted(rig)
    slow, quick = await follow(rig, job_id), await follow(rig, job_id)
    call = await worker.call()
    flow = rig.queen._flows._flows[job_id]
    pieces = 0
    while not any(follower._paused for follower in flow._followers):
        call.tokens("x" * 50_000)
        pieces += 1
        await until(lambda: len(flow.rows) == pieces)  # noqa: B023 - asked before the next round
        await quick.read_chunk()
        assert pieces < 2000
    call.end()
    assert (await events_of(quick))[-1].name == "done"
    assert len(texts(await events_of(slow))) == pieces
    await until(rig.is_idle)


async def test_a_quiet_stream_is_pinged(
    tmp_path: Path, new_worker: NewWorker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "PING_INTERVAL_S", 0.02)
    async with running_queen(tmp_path / "home") as rig:
        worker = await new_worker()
        worker.behaviour = holds
        await rig.adopt(worker)
        follower = await follow(rig, await submitted(rig))
        assert [await follower.read_chunk() for _ in range(2)] == [PING, PING]
        answers_at_once(await worker.call())
        assert (await events_of(follower))[-1].name == "done"
        await until(rig.is_idle)


async def test_a_server_that_says_why_it_ended_need_not_say_that_it_ended(
    rig: Rig, new_worker: NewWorker, until: Until
) -> None:
    def ends_unmarked(call: Call) -> None:
        call.tokens("all")
        call.raw(chunk(delta("", "length")) + b"0\r\n\r\n")
        call.exchange.finish()

    worker = await new_worker()
    worker.behaviour = ends_unmarked
    await rig.adopt(worker)
    job_id = await submitted(rig)
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["attempts"]) == ("done", 1)
