"""What a queen writes down of her decisions, and that it outlives her."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from queen_rig import CHAT, FLOW, Rig, chat, running_queen
from scripted_worker import ScriptedWorker
from swarmesh.store.records import DecisionRecord

NewWorker = Callable[..., Awaitable[ScriptedWorker]]


async def kept(rig: Rig) -> list[DecisionRecord]:
    return await rig.queen._store.decisions(0)


async def test_decisions_are_there_for_the_next_queen(tmp_path: Path, new_worker: NewWorker) -> None:
    async with running_queen(tmp_path / "home") as rig:
        worker_id = await rig.adopt(await new_worker())
        taken = await rig.ask("POST", CHAT, chat(max_tokens=9))
        refused = await rig.ask("POST", FLOW, {"prompt": "hi", "modelcell": "nobody"})
        assert (taken.status, refused.status) == (200, 404)
    async with running_queen(tmp_path / "home") as rig:
        admitted, scored = await kept(rig)
    assert (admitted.kind, scored.kind) == ("admit", "score")
    let_in, chosen = msgspec.json.decode(admitted.facts), msgspec.json.decode(scored.facts)
    assert let_in["refused"] is None
    assert let_in["task"] == chosen["task"]
    assert (chosen["task"]["id"], chosen["task"]["max_tokens"]) == (taken.headers["x-swarmesh-task"], 9)
    assert chosen["chosen"] == worker_id
    assert [worker["id"] for worker in chosen["workers"]] == [worker_id]
    assert chosen["policy"] == "swarm"


async def test_a_full_load_is_a_sample(tmp_path: Path, new_worker: NewWorker) -> None:
    async with running_queen(tmp_path / "home") as rig:
        await rig.adopt(await new_worker())
        connection = await rig.connect()
        for _ in range(500):
            connection.send(rig.chat_bytes())
            assert (await connection.read_answer()).status == 200
        await rig.queen._recorder.close()
        scored = [record for record in await kept(rig) if record.kind == "score"]
    assert 0 < len(scored) < 500
