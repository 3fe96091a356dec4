"""Rustbees that come and go by themselves: real agents of this machine, a queen in this process, time shortened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from queen_rig import CHAT, FLOW, RUSTBEES, Rig, chat, running_queen
from raw_client import Answer
from scripted_worker import ScriptedWorker
from swarmesh.core import breaker, scale_book, scale_rule
from swarmesh.hosts.host import HostFacts
from swarmesh.models.catalog import Catalog
from swarmesh.queen import process, swarmscale
from swarmesh.queen.hosts import Hosts
from swarmesh.queen.surveys import SURVEYS_MAX

SCALE = "/v2/swarmesh/swarmscale"
EXPLAIN = "/v2/swarmesh/explain"
FAKE = "fake:tokens=6,tokens_per_s=200"
BROKEN = "broken"

Until = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK_INTERVAL_S", 0.05)
    monkeypatch.setattr(breaker, "RETRY_MS", 50)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a modelcell that cannot be started."""
    Catalog(tmp_path).add_python_class(BROKEN, "no_such_module:Class", added_at=0.0)
    return tmp_path


@asynccontextmanager
async def queen_at(home: Path, until: Until) -> AsyncIterator[Rig]:
    """A queen whose agents do not outlive her."""
    async with running_queen(home) as rig:
        try:
            yield rig
        finally:
            await rig.ask("POST", f"{SCALE}/pause", {})
            for worker_id in workers(rig):
                await rig.ask("DELETE", f"{RUSTBEES}/{worker_id}?grace_s=0")
            await until(lambda: not (workers(rig) or rig.queen._workers._tasks), what="all agents are gone")


async def learned(rig: Rig, until: Until) -> str:
    """Spawn one rustbee of the modelcell ``fake`` by hand, and wait for it; its id."""
    asked = {"modelcell": "fake", "class_path": FAKE, "slots": 2}
    worker_id = str((await rig.json("POST", RUSTBEES, asked))["rustbee_id"])
    await until(lambda: is_healthy(rig, worker_id), what="it is healthy")
    return worker_id


async def is_healthy(rig: Rig, worker_id: str) -> bool:
    return bool((await rig.rustbee(worker_id))["status"] == "healthy")


async def gone(rig: Rig, until: Until, worker_id: str) -> None:
    await rig.ask("DELETE", f"{RUSTBEES}/{worker_id}")
    await until(lambda: worker_id not in rig.swarm.fleet, what="it is gone")


async def from_zero(rig: Rig, until: Until) -> None:
    """Bounds for ``fake``, and nobody who serves it."""
    worker_id = await learned(rig, until)
    await rig.json("PUT", f"{SCALE}/fake", {"min": 0, "max": 2})
    await rig.json("POST", f"{SCALE}/pause", {"modelcell": "fake"})
    await gone(rig, until, worker_id)
    await rig.json("POST", f"{SCALE}/resume", {"modelcell": "fake"})


def workers(rig: Rig) -> list[str]:
    return [worker.worker_id for worker in rig.swarm.fleet]


async def test_the_first_request_starts_a_rustbee_and_is_answered(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        await from_zero(rig, until)
        assert [model["id"] for model in (await rig.json("GET", "/v1/models"))["data"]] == ["fake"]
        answer = await rig.ask("POST", CHAT, chat())
        assert answer.status == 200
        (worker_id,) = workers(rig)
        assert answer.headers["x-swarmesh-rustbee"] == worker_id
        shown = await rig.rustbee(worker_id)
        assert shown["slots"] == 2, "it got what the one got that was spawned by hand"
        explained = await rig.json("GET", f"{EXPLAIN}/scale/fake")
        assert explained["history"][-1]["rule"] == "first_request"
        assert explained["history"][-1]["rustbees"] == [worker_id]
        assert explained["load_times"][0]["load_s"] > 0
        assert explained["placement"]["choice"] == shown["host"]
        placed = await rig.json("GET", f"{EXPLAIN}/placement/fake?now=false")
        assert (placed["choice"], placed["live"]) == (shown["host"], False)
        assert workers(rig) == [worker_id]


async def test_a_nectarflow_without_a_name_waits_for_the_only_modelcell(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        await from_zero(rig, until)
        job = (await rig.json("POST", FLOW, {"prompt": "hi", "max_tokens": 2}))["job_id"]

        async def done() -> bool:
            return bool((await rig.json("GET", f"{FLOW}/{job}"))["status"] == "done")

        await until(done, what="the nectarflow is done")


async def test_it_goes_when_nobody_asks(home: Path, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_rule, "IDLE_MS", 300)
    monkeypatch.setattr(scale_book, "DOWN_COOL_DOWN_MS", 300)
    async with queen_at(home, until) as rig:
        worker_id = await learned(rig, until)
        shown = await rig.rustbee(worker_id)
        agent, engine = psutil.Process(shown["pid"]), psutil.Process(shown["engine_pid"])
        await rig.json("PUT", f"{SCALE}/fake", {"min": 0, "max": 2})
        await until(lambda: not workers(rig), what="nobody is left")
        assert has_ended(engine), "its memory is free before it is given away"
        await until(lambda: has_ended(agent), what="its agent has ended as well")
        assert (await rig.ask("POST", CHAT, chat())).status == 200, "and comes back"
        *_, back, went = (await rig.json("GET", f"{EXPLAIN}/scale/fake"))["history"]
        # Newest first: where this took long, it has gone for want of requests once more since.
        assert (went["rule"], back["rule"]) == ("idle", "first_request")


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_minimum_is_filled_and_filled_again(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        first = await learned(rig, until)
        await rig.json("PUT", f"{SCALE}/fake", {"min": 2, "max": 2})
        await until(lambda: len(workers(rig)) == 2, what="two are there")
        await until(lambda: all_healthy(rig), what="both are healthy")
        psutil.Process((await rig.rustbee(first))["pid"]).kill()
        await until(lambda: first not in workers(rig) and len(workers(rig)) == 2, what="another one is there")


async def all_healthy(rig: Rig) -> bool:
    return all([await is_healthy(rig, worker_id) for worker_id in workers(rig)])


async def test_what_cannot_start_is_given_up_and_said(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        await rig.json("PUT", f"{SCALE}/{BROKEN}", {"max": 1})
        answer = await rig.ask("POST", CHAT, chat(model=BROKEN))
        assert (answer.status, answer.error["code"]) == (503, "model_cannot_be_placed")
        assert int(answer.headers["retry-after"]) > 0
        assert "no_such_module" in answer.error["message"]
        again = await rig.ask("POST", CHAT, chat(model=BROKEN))
        assert again.status == 503, "at once, while the breaker is open"
        view = await rig.json("GET", f"{SCALE}/{BROKEN}")
        assert view["breaker_s"] > 0
        assert "no_such_module" in view["breaker_reason"]
        await until(lambda: workers(rig) == [], "the last one that failed has ended as well")

        async def is_told() -> bool:
            alarms = (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"]
            return any(not alarm["rustbee_id"] and BROKEN in alarm["message"] for alarm in alarms)

        await until(is_told, "an alarm is written when there is time for it")


async def test_bounds_outlive_the_queen(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        await from_zero(rig, until)
        assert (await rig.ask("POST", CHAT, chat())).status == 200
    async with queen_at(home, until) as rig:
        status = await rig.json("GET", SCALE)
        assert status["paused"]
        assert [(cell["modelcell"], cell["bounds"]["max"]) for cell in status["modelcells"]] == [("fake", 2)]
        refused = await rig.ask("POST", CHAT, chat())
        assert (refused.status, "paused" in refused.error["message"]) == (503, True)
        await rig.json("POST", f"{SCALE}/resume")
        assert (await rig.json("GET", f"{EXPLAIN}/scale/fake"))["load_times"][0]["load_s"] > 0
        assert (await rig.ask("POST", CHAT, chat())).status == 200, "what it is started with is known as well"


async def test_what_the_routes_refuse(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        asked = {
            ("PUT", f"{SCALE}/brokn", '{"max":1}'): (404, "model_not_found"),
            ("GET", f"{SCALE}/brokn", ""): (404, "model_not_found"),
            ("DELETE", f"{SCALE}/{BROKEN}", ""): (409, "conflict"),
            ("DELETE", SCALE, ""): (409, "conflict"),
            ("POST", f"{SCALE}/pause", f'{{"modelcell":"{BROKEN}"}}'): (409, "conflict"),
            ("GET", f"{EXPLAIN}/scale/brokn", ""): (404, "model_not_found"),
            ("GET", f"{EXPLAIN}/placement/{BROKEN}?now=maybe", ""): (400, "invalid_value"),
            ("GET", f"{EXPLAIN}/placement/{BROKEN}?now=false", ""): (409, "conflict"),
        }
        for (method, target, _), expected in asked.items():
            body = {"max": 1} if method == "PUT" else {"modelcell": BROKEN} if method == "POST" else None
            answer = await rig.ask(method, target, body)
            assert (answer.status, answer.error["code"]) == expected, target
        answer = await rig.ask("PUT", f"{SCALE}/{BROKEN}", {"min": 3, "max": 2})
        assert (answer.status, answer.error["param"]) == (400, "max")
        answer = await rig.ask("PUT", f"{SCALE}/{BROKEN}", {"min": -1})
        assert answer.status == 400
        near = await rig.ask("PUT", f"{SCALE}/brokn", {"max": 1})
        assert near.error["hint"] == f"Did you mean '{BROKEN}'?"


async def test_only_the_admin_changes_anything(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        made = await rig.json("POST", "/v2/swarmesh/keys", {"name": "a client"})
        auth = {"authorization": f"Bearer {made['key']}"}
        for method, target in (("PUT", SCALE), ("DELETE", SCALE), ("POST", f"{SCALE}/pause")):
            assert (await rig.ask(method, target, {}, auth)).status == 403, target
        assert (await rig.ask("GET", SCALE, None, auth)).status == 200


async def test_where_one_would_go_is_asked_without_starting_any(home: Path, until: Until) -> None:
    async with queen_at(home, until) as rig:
        told = await rig.json("GET", f"{EXPLAIN}/placement/{BROKEN}")
        (site,) = told["hosts"]
        assert (told["live"], told["choice"], site["need_mib"]) == (True, site["host"], 128)
        assert sum(told["weights"].values()) == pytest.approx(1.0)
        score = sum(told["weights"][name] * vote for name, vote in site["votes"].items())
        assert site["score"] == pytest.approx(score, abs=1e-3)
        assert workers(rig) == []
        document = await rig.json("GET", "/openapi.json")
        assert "/v2/swarmesh/swarmscale/{modelcell}" in document["paths"]


async def test_who_asks_at_once_where_one_would_go_shares_one_survey(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key may ask, and each survey asks all hosts."""
    models = [f"other-{number}" for number in range(SURVEYS_MAX)]
    for name in models:
        Catalog(home).add_python_class(name, "no_such_module:Class", added_at=0.0)
    probes, go, probe = [], asyncio.Event(), Hosts.probe

    async def slow_probe(hosts: Hosts, name: str) -> HostFacts:
        probes.append(name)
        await go.wait()
        return await probe(hosts, name)

    async with queen_at(home, until) as rig:
        key = (await rig.json("POST", "/v2/swarmesh/keys", {"name": "ada"}))["key"]
        auth = {"authorization": f"Bearer {key}"}

        async def placed(model: str) -> Answer:
            return await rig.ask("GET", f"{EXPLAIN}/placement/{model}", headers=auth)

        monkeypatch.setattr(Hosts, "probe", slow_probe)
        asking = [asyncio.create_task(placed(models[0])) for _ in range(10)]
        asking += [asyncio.create_task(placed(model)) for model in models[1:]]
        await until(lambda: len(probes) == len(models), what="all are under way")
        refused = await placed(BROKEN)
        assert (refused.status, refused.error["code"]) == (503, "too_many_surveys")
        assert int(refused.headers["retry-after"]) > 0
        go.set()
        answers = await asyncio.gather(*asking)
        assert len(probes) == len(models), "the ten shared one"
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers[:10]}) == 1
        assert (await placed(BROKEN)).json()["choice"] == "localhost"


async def test_hosts_that_take_too_long_are_said_to(home: Path, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_hosts: Hosts, _name: str) -> HostFacts:
        await asyncio.Event().wait()
        raise AssertionError

    async with queen_at(home, until) as rig:
        monkeypatch.setattr(Hosts, "probe", hang)
        monkeypatch.setattr(swarmscale, "SURVEY_LIMIT_S", 0.01)
        told = await rig.json("GET", f"{EXPLAIN}/placement/{BROKEN}")
        assert [site["veto"] for site in told["hosts"]] == ["the hosts could not be asked within 0.01 s"]


async def test_a_name_with_a_slash_is_one_name(home: Path, until: Until) -> None:
    Catalog(home).add_python_class("org/model", "m:Class", added_at=0.0)
    async with queen_at(home, until) as rig:
        for name in ("org/model", "org%2Fmodel"):
            await rig.json("PUT", f"{SCALE}/{name}", {"max": 1})
            assert (await rig.json("GET", f"{SCALE}/{name}"))["modelcell"] == "org/model"
            await rig.json("DELETE", f"{SCALE}/{name}")


async def test_an_adopted_server_counts_and_stays(
    home: Path, new_worker: Callable[..., Awaitable[ScriptedWorker]], until: Until
) -> None:
    async with running_queen(home) as rig:
        await rig.adopt(await new_worker())
        await rig.json("PUT", f"{SCALE}/fake", {"min": 0, "max": 1})
        await rig.adopt(await new_worker())
        await until(lambda: _counted(rig, 2), what="both count")
        assert len(workers(rig)) == 2


async def _counted(rig: Rig, count: int) -> bool:
    view = await rig.json("GET", f"{SCALE}/fake")
    return bool((view["rustbees"], view["adopted"]) == (count, count))
