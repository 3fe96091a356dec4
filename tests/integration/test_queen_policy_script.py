"""A queen whose policy script misbehaves, dies or is saved anew: her clients never notice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, Rig, chat, running_queen
from scripted_worker import ScriptedAgent, ScriptedWorker, chat_chunk, completion, end_mark, holds
from swarmesh.core.script import Hook
from swarmesh.policy import script as policy_script
from swarmesh.policy.samples import samples
from swarmesh.queen import scripts as queen_scripts
from swarmesh.queen.scripts import BAD_SAVE, Scripts

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]

SCRIPT = "/v2/swarmesh/policies/script"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "policies"
AT_ONCE = 4
ASKED = 60

MISBEHAVIOUR = {
    "an endless loop": "    total = 0\n    for each in range(1000000000):\n        total += each\n    return [total]",
    "a list of 10 million": "    return [0] * (len(workers) * 3333334)",
    "a list of 1,000 million": "    return [0] * (len(workers) * 300000000)",
    "deep recursion": "    return score(task, workers)",
    "a wrong type": "    return {'best': 1} if task.attempt else []",
    "a wrong item": "    return ['first' if task.attempt else 1 for _ in workers]",
    "an error": "    return [worker.nope if task.attempt else 1 for worker in workers]",
    "a flood of prints": "    for _ in range(100000):\n        print('x' * 1000)\n    return [1 for _ in workers]",
    "a huge answer": "    return [0] * (len(workers) * 500000)",
    "native code without end": "    return sorted(range(len(workers) * 3000000))",
}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what a script decides: on a machine with much to do its answer may be late."""
    monkeypatch.setattr(policy_script, "ANSWER_S_MAX", 10.0)


@pytest.fixture
async def scripts(rig: Rig) -> Scripts:
    return rig.queen._scripts


@pytest.fixture
async def workers(rig: Rig, new_worker: NewWorker) -> None:
    for _ in range(3):
        await rig.adopt(await new_worker())


async def activate(rig: Rig, source: str, path: Path | str = "", name: str = "x.star") -> dict[str, Any]:
    view: dict[str, Any] = await rig.json("PUT", SCRIPT, {"name": name, "source": source, "path": str(path)})
    return view


async def traffic(rig: Rig, count: int = ASKED) -> tuple[list[int], float]:
    """The statuses of so many requests, a few at once, and the longest in ms."""
    statuses: list[int] = []
    worst_s = 0.0

    async def client(times: int) -> None:
        nonlocal worst_s
        for _ in range(times):
            began_s = time.monotonic()
            answer = await rig.ask("POST", CHAT, chat())
            worst_s = max(worst_s, time.monotonic() - began_s)
            statuses.append(answer.status)

    await asyncio.gather(*(client(count // AT_ONCE) for _ in range(AT_ONCE)))
    return statuses, worst_s * 1_000


def only_when_asked(body: str) -> str:
    """A script that is right when it is checked and wrong when it decides: the samples are of another model."""
    return f"def score(task, workers):\n    if task.model != 'fake':\n        return [1 for _ in workers]\n{body}\n"


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("what", MISBEHAVIOUR)
async def test_whatever_a_script_does_traffic_goes_on(rig: Rig, until: Until, what: str) -> None:
    async def failure() -> dict[str, Any] | None:
        # An answer that is late is counted when the script would be asked next, which takes more traffic.
        statuses, worst_ms = await traffic(rig)
        view: dict[str, Any] = await rig.json("GET", SCRIPT)
        print(f"\n{what}: {len(statuses)} requests, worst {worst_ms:.0f} ms, {view['state']}: {view['reason']}")
        assert set(statuses) == {200}
        return view if view["failed"] else None

    await activate(rig, only_when_asked(MISBEHAVIOUR[what]))
    view = await until(failure, "its failure is counted")
    assert view["errors"][0]["message"].startswith("x.star")


@pytest.mark.usefixtures("workers", "patient")
async def test_three_failures_in_a_row_are_an_alarm_and_the_built_in_policy(rig: Rig, until: Until) -> None:
    async def raised() -> list[dict[str, Any]]:
        alarms: list[dict[str, Any]] = (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"]
        return alarms

    await activate(rig, only_when_asked(MISBEHAVIOUR["an error"]))
    await traffic(rig)
    view = await rig.json("GET", SCRIPT)
    assert (view["state"], view["failed"]) == ("off", 3)
    assert "x.star:4:13: Object of type `struct` has no attribute `nope`" in view["reason"]
    alarms = await until(raised, "it is raised")
    assert [alarm["code"] for alarm in alarms] == ["policy_script_failed"]
    assert "'x.star' was turned off" in alarms[0]["message"]
    await activate(rig, "def score(task, workers):\n    return [1 for _ in workers]\n")
    await traffic(rig, AT_ONCE)
    assert (await rig.json("GET", SCRIPT))["state"] == "active"


@pytest.mark.usefixtures("workers", "patient")
async def test_of_a_nectarflow_the_script_is_asked_once(rig: Rig) -> None:
    await activate(rig, "def admit(task):\n    return None\n")
    for _ in range(2):
        assert (await rig.ask("POST", FLOW, {"modelcell": "fake", "prompt": "hi"})).status == 202
    assert (await rig.json("GET", SCRIPT))["asked"] == 2


@pytest.mark.usefixtures("workers")
async def test_a_process_that_is_killed_again_and_again(rig: Rig, scripts: Scripts) -> None:
    await activate(rig, "def score(task, workers):\n    return [-worker.rank for worker in workers]\n")
    script = scripts._script
    assert script is not None
    running = asyncio.get_running_loop().create_task(traffic(rig, 400))
    killed: set[int] = set()
    while not running.done() and len(killed) < 2:
        if script.pid and not script.is_away and script.pid not in killed and script.tally.answered:
            killed.add(script.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(script.pid, signal.SIGKILL)
        await asyncio.sleep(0.005)
    statuses, worst_ms = await running
    view = await rig.json("GET", SCRIPT)
    print(f"\nkilled {len(killed)} times: worst {worst_ms:.0f} ms, asked {view['asked']}, failed {view['failed']}")
    assert set(statuses) == {200}
    assert view["state"] == "active", "being killed is no fault of the script"
    assert killed


@pytest.mark.usefixtures("workers", "patient")
async def test_a_save_is_taken_up_while_requests_run(
    rig: Rig, until: Until, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queen_scripts, "LOOK_S", 0.05)
    file = tmp_path / "x.star"
    file.write_text("def admit(task):\n    return None\n")
    assert (await activate(rig, file.read_text(), file))["watched"]
    assert set((await traffic(rig, AT_ONCE))[0]) == {200}
    file.write_text("def admit(task):\n    return 'closed for today'\n")

    async def is_refused() -> bool:
        answer = await rig.ask("POST", CHAT, chat())
        return answer.status == 403 and "closed for today" in answer.json()["error"]["message"]

    await until(is_refused)
    file.write_text("def admit(task):\n    return nothing\n")

    async def alarms() -> list[str]:
        told = (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"]
        return [alarm["message"] for alarm in told if alarm["code"] == BAD_SAVE]

    (message,) = await until(alarms)
    assert "x.star:2:12: Variable `nothing` not found" in message
    assert await is_refused(), "the last good one goes on"
    file.write_text("def admit(task):\n    return None\n")

    async def is_open() -> bool:
        return bool((await rig.ask("POST", CHAT, chat())).status == 200)

    await until(is_open)


async def test_a_script_outlives_its_queen(tmp_path: Path) -> None:
    async with running_queen(tmp_path / "home") as rig:
        await activate(rig, "def admit(task):\n    return 'closed'\n")
    async with running_queen(tmp_path / "home") as rig:
        view = await rig.json("GET", SCRIPT)
        assert (view["state"], view["name"], view["hooks"]) == ("active", "x.star", ["admit"])


# the examples


def example(name: str) -> str:
    return (EXAMPLES / name).read_text(encoding="utf-8")


@pytest.mark.usefixtures("workers", "patient")
async def test_own_machines_at_night_decides(rig: Rig) -> None:
    await activate(rig, example("own_machines_at_night.star"))
    assert set((await traffic(rig))[0]) == {200}
    view = await rig.json("GET", SCRIPT)
    assert (view["state"], view["failed"]) == ("active", 0)
    assert view["asked"] >= ASKED


@pytest.mark.usefixtures("patient")
async def test_one_slot_is_kept_for_the_high_band(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    await rig.register(agent, slots=2)
    await activate(rig, example("one_slot_for_high.star"))
    for _ in range(2):
        await rig.start_chat(priority="medium", stream=True)
    first = await agent.call()
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    assert rig.busy_slots == 1, "the last slot stays free"
    await rig.start_chat(priority="high")
    urgent = await agent.call(1)
    assert rig.busy_slots == 2
    urgent.json(200, completion("done"))
    first.last(chat_chunk(1, "done"), chat_chunk(2, "", finish="stop"), end_mark(3))
    await agent.call(2)
    assert rig.busy_slots == 1


@pytest.mark.usefixtures("patient")
async def test_large_models_stay_off_the_laptop(rig: Rig) -> None:
    await activate(rig, example("small_models_on_the_laptop.star"))
    for sample, expected in zip(samples(Hook.PLACE), ([0.5, 0.5, 0.5], [0.5, None, 0.5]), strict=True):
        model, hosts = sample.arguments
        assert rig.swarm.scripted.place(model, list(hosts)) == expected  # type: ignore[arg-type]
