"""Fifty workers on four machines, all spawned and all stopped, again and again; nothing may be left."""

from __future__ import annotations

import time
from typing import Any, Final

from bench.reliability.plan import Plan

from .leftovers import Kind, count, left, present, workers_memory_mib
from .result import Row
from .swarm import NAMES, Swarm, hosts

WORKERS: Final = 50
QUICK_WORKERS: Final = 8
TURNS: Final = 3
SPEC: Final[dict[str, Any]] = {"modelcell": "fake", "class_path": "fake:tokens=5", "slots": 4}
SHOWN: Final = 5
SSH_PORT: Final = 22


class Fleet:
    """Spawn all, stop all, count what is left."""

    name = "fleet"
    about = f"{WORKERS} rustbees with the fake engine on the queen's machine and three hosts, {TURNS} times over"

    def run(self, plan: Plan) -> list[Row]:
        """See `Scenario`."""
        workers = QUICK_WORKERS if plan.quick else WORKERS
        turns = plan.runs or TURNS
        spawned, stopped, memory, problems = [], [], [], []
        remains: dict[Kind, list[float]] = {kind: [] for kind in Kind}
        with hosts() as swarm:
            before = present(swarm)
            for turn in range(turns):
                names, seconds = _spawn_all(swarm, workers)
                spawned.append(seconds)
                living, mib = workers_memory_mib(swarm)
                memory.append(mib / max(1, living))
                if living != workers:
                    problems.append(f"turn {turn + 1}: {living} agents run, not {workers}")
                problems += _open_ports(swarm)
                began_s = time.monotonic()
                swarm.stop(names)
                stopped.append(time.monotonic() - began_s)
                more = left(swarm, before)
                for kind, counts in remains.items():
                    counts.append(float(count(more, kind)))
                problems += [f"turn {turn + 1}: {what}" for _, what in list(more)[:SHOWN]]
                plan.say(
                    f"{self.name} {turn + 1}: spawned {seconds:.1f} s, stopped {stopped[-1]:.1f} s, {more.total()} left"
                )
        each = f"{workers} rustbees, {workers // 4} or {-(-workers // 4)} on each of four machines"
        return [
            Row(what=f"until {each}, are healthy", values=tuple(spawned)),
            Row(what="until all of them have ended", values=tuple(stopped)),
            Row(what="memory of one, agent and engine (PSS)", values=tuple(memory), unit="MiB"),
            *(
                Row(what=f"{kind.value} left afterwards", values=tuple(counts), unit="", limit=0.0)
                for kind, counts in remains.items()
            ),
            Row(
                what="anything else that was wrong",
                values=(float(len(problems)),),
                unit="",
                limit=0.0,
                problems=tuple(problems),
            ),
        ]


def _spawn_all(swarm: Swarm, workers: int) -> tuple[list[str], float]:
    places = ("", *NAMES)
    began_s = time.monotonic()
    names = [swarm.spawn_on(places[number % len(places)], SPEC) for number in range(workers)]
    swarm.healthy(workers)
    return names, time.monotonic() - began_s


def _open_ports(swarm: Swarm) -> list[str]:
    listening = {name: machine.listening() for name, machine in swarm.machines.items()}
    return [f"{name} listens on {sorted(ports)}" for name, ports in listening.items() if ports != {SSH_PORT}]
