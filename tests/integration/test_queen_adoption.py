"""Servers that run already: taken in, watched, missed when they die, welcome when they come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, RUSTBEES, Rig, chat, running_queen
from scripted_worker import ScriptedWorker
from swarmesh.queen import foreign

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "PROBE_INTERVAL_S", 0.02)


async def alarms_of(rig: Rig) -> list[dict[str, Any]]:
    alarms: list[dict[str, Any]] = (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"]
    return alarms


def status(rig: Rig) -> list[str]:
    return [worker.status.value for worker in rig.swarm.fleet]


async def test_what_is_shown_of_it(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    worker_id = await rig.adopt(worker, slots=3)
    shown = await rig.rustbee(worker_id)
    assert (shown["backend"], shown["modelcell"], shown["slots"]) == ("openai", "fake", 3)
    assert (shown["location"], shown["status"], shown["error"]) == (worker.url, "healthy", None)
    listed = await rig.json("GET", RUSTBEES)
    assert [entry["rustbee_id"] for entry in listed["rustbees"]] == [worker_id]
    waggles = await rig.json("GET", "/v2/swarmesh/waggles")
    assert [entry["rustbee_id"] for entry in waggles["waggles"]] == [worker_id]


async def test_the_default_number_of_slots(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker()
    answer = await rig.json("POST", RUSTBEES, {"type": "openai", "modelcell": "fake", "url": worker.url})
    assert (await rig.rustbee(answer["rustbee_id"]))["slots"] == foreign.DEFAULT_SLOTS


async def test_a_name_that_it_does_not_have(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker(["one", "two"])
    asked = {"type": "openai", "modelcell": "three", "url": worker.url}
    answer = await rig.ask("POST", RUSTBEES, asked)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "serves one, two, but not 'three'" in answer.error["message"]


async def test_the_same_server_twice(rig: Rig, new_worker: NewWorker) -> None:
    worker = await new_worker(["one", "two"])
    worker_id = await rig.adopt(worker, model="one")
    again = await rig.ask("POST", RUSTBEES, {"type": "openai", "modelcell": "one", "url": worker.url})
    assert (again.status, again.error["code"]) == (409, "conflict")
    assert worker_id in again.error["message"]
    await rig.adopt(worker, model="two")


@pytest.mark.parametrize("probe_status", [401, 404, 500])
async def test_one_that_does_not_let_us_look(rig: Rig, new_worker: NewWorker, probe_status: int) -> None:
    worker = await new_worker()
    worker.probe_status = probe_status
    answer = await rig.ask("POST", RUSTBEES, {"type": "openai", "modelcell": "fake", "url": worker.url})
    assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
    assert f"answered {probe_status}" in answer.error["message"]
    assert not list(rig.swarm.fleet)


async def test_it_dies_and_comes_back_by_itself(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker_id = await rig.adopt(worker)
    await worker.stop()
    await until(lambda: status(rig) == ["dead"])
    shown = await rig.rustbee(worker_id)
    assert (shown["status"], shown["error"]["code"]) == ("dead", "server_unreachable")
    refused = await rig.ask("POST", CHAT, chat())
    assert (refused.status, refused.error["code"]) == (503, "no_rustbees_available")
    assert f"{worker_id} is dead" in refused.error["message"]
    await worker.start()
    await until(lambda: status(rig) == ["healthy"])
    assert (await rig.rustbee(worker_id))["error"] is None
    assert (await rig.ask("POST", CHAT, chat())).status == 200
    alarms = await until(lambda: alarms_of(rig), "they are on disk a moment after they were raised")
    assert [alarm["code"] for alarm in alarms] == ["server_unreachable"], "one death, one alarm"


async def test_one_that_is_only_slow_once_is_not_dead(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    probes = [0]
    answer = worker._answer

    def count(exchange: Any) -> None:
        probes[0] += 1
        worker.probe_status = 500 if probes[0] % 3 else 200  # Two in a row fail, the third goes well.
        answer(exchange)

    assert worker._server is not None
    worker._server.application = count
    await until(lambda: probes[0] > 12)
    assert status(rig) != ["dead"]
    assert (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"] == []


async def test_a_nectarflow_waits_for_it(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    await rig.adopt(worker)
    await worker.stop()
    await until(lambda: status(rig) == ["dead"])
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    assert (await rig.json("GET", f"{FLOW}/{job_id}"))["status"] == "queued"
    await worker.start()
    await until(rig.is_idle)
    await rig.queen._flows.settle()
    assert (await rig.json("GET", f"{FLOW}/{job_id}"))["status"] == "done"


async def test_letting_it_go(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker_id = await rig.adopt(worker)
    await rig.json("DELETE", f"{RUSTBEES}/{worker_id}")
    await until(lambda: not list(rig.swarm.fleet))
    shown = await rig.rustbee(worker_id)
    assert shown["status"] == "dead", "it can still be asked about"
    assert (await rig.json("GET", RUSTBEES))["rustbees"] == []
    await until(lambda: not rig.queen._foreign._probes)
    assert await rig.adopt(worker) != worker_id


async def test_it_is_known_after_a_restart_dead_or_alive(tmp_path: Path, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker(["its-own-name"])
    asked = {"type": "openai", "modelcell": "ours", "url": worker.url, "api_key": "sk-theirs", "slots": 3}
    async with running_queen(tmp_path / "home") as rig:
        worker_id = (await rig.json("POST", RUSTBEES, asked))["rustbee_id"]
    await worker.stop()
    async with running_queen(tmp_path / "home") as rig:
        await until(lambda: status(rig) == ["dead"])
        await worker.start()
        await until(lambda: status(rig) == ["healthy"])
        assert (await rig.rustbee(worker_id))["slots"] == 3
        assert (await rig.ask("POST", CHAT, chat(model="ours"))).status == 200
        assert worker.calls[0].headers["authorization"] == "Bearer sk-theirs"
        assert worker.calls[0].body["model"] == "its-own-name"


async def test_one_that_was_let_go_stays_away_after_a_restart(
    tmp_path: Path, new_worker: NewWorker, until: Until
) -> None:
    worker = await new_worker()
    async with running_queen(tmp_path / "home") as rig:
        worker_id = await rig.adopt(worker)
        await rig.json("DELETE", f"{RUSTBEES}/{worker_id}")
        await until(lambda: not list(rig.swarm.fleet))
    async with running_queen(tmp_path / "home") as rig:
        assert status(rig) == []
