"""The queen is killed while workers live on three hosts; the next one has to find them all, engines untouched."""

from __future__ import annotations

import time
from typing import Any, Final

from bench.reliability.plan import Plan
from bench.reliability.queen_lives import BACK_WITHIN_S, engine_pids

from .result import Row
from .swarm import NAMES, hosts

RUNS: Final = 20
EACH: Final = 2
SPEC: Final[dict[str, Any]] = {"modelcell": "fake", "class_path": "fake:tokens=5", "slots": 4}
ADOPTED_S_MAX: Final = 5.0


class Adoption:
    """``kill -9`` of the queen, and a new one at once."""

    name = "adoption"
    about = f"the queen killed with {EACH} rustbees on each of {len(NAMES)} hosts, and started again at once"

    def run(self, plan: Plan) -> list[Row]:
        """See `Scenario`."""
        took_s: list[float] = []
        problems: list[str] = []
        with hosts() as swarm:
            for name in NAMES * EACH:
                swarm.spawn_on(name, SPEC)
            count = EACH * len(NAMES)
            swarm.healthy(count)
            before = engine_pids(swarm, count)
            for turn in range(plan.count(RUNS)):
                swarm.kill_queen()
                killed_s = time.monotonic()
                starting = swarm.start_queen()
                now = engine_pids(swarm, count)
                took_s.append(time.monotonic() - killed_s)
                starting.wait(BACK_WITHIN_S)
                if now != before:
                    problems.append(f"run {turn + 1}: engines were {before}, are {now}")
                    before = now
                plan.say(f"{self.name} {turn + 1}: {took_s[-1]:.2f} s")
        what = f"from the queen's death until the next one has all {count} rustbees of {len(NAMES)} hosts healthy"
        return [Row(what=what, values=tuple(took_s), limit=ADOPTED_S_MAX, problems=tuple(problems))]
