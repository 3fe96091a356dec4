"""Machines that join from nothing, are added again, and are removed."""

from __future__ import annotations

from typing import Final

from bench.reliability.plan import Plan

from .bed import bed
from .result import Row
from .swarm import Swarm

RUNS: Final = 5
SSH_PORT: Final = 22


class Install:
    """See `swarmesh hosts add` and `hosts remove`."""

    name = "install"
    about = "machines that have Python and no way to a package registry are added, added again, and removed"

    def run(self, plan: Plan) -> list[Row]:
        """See `Scenario`."""
        times: dict[str, list[float]] = {"fresh": [], "again": [], "gone": []}
        problems: list[str] = []
        with bed() as made, Swarm() as swarm:
            for number in range(1 + plan.count(RUNS)):  # The first one waits until the queen has fetched the wheels.
                machine, name = made.machine(), f"host-{number}"
                before = machine.files()
                times["fresh"].append(swarm.add(name, machine))
                times["again"].append(swarm.add(name, machine))
                if machine.listening() != {SSH_PORT}:
                    problems.append(f"{name} listens on {sorted(machine.listening())}")
                times["gone"].append(swarm.remove(name))
                if more := set(machine.files()) - set(before):
                    problems.append(f"{len(more)} files left on {name}, such as {min(more)}")
                if machine.processes():
                    problems.append(f"processes left on {name}: {sorted(machine.processes().values())}")
                machine.power_off()
                plan.say(f"{self.name}: {name} {', '.join(f'{what} {each[-1]:.1f} s' for what, each in times.items())}")
        first, *fresh = times["fresh"]
        return [
            Row(what="a host added from nothing, the wheels still to be fetched by the queen", values=(first,)),
            Row(what="a host added from nothing, the queen has the wheels", values=tuple(fresh)),
            Row(what="the same host added again", values=tuple(times["again"])),
            Row(what="a host removed, with everything that was put there", values=tuple(times["gone"])),
            Row(
                what="left on it, or open on it but port 22",
                values=(float(len(problems)),),
                unit="",
                limit=0.0,
                problems=tuple(problems),
            ),
        ]
