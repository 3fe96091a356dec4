"""The cable to a host is pulled while an answer comes from it, and put back after the answer has ended elsewhere."""

from __future__ import annotations

import random
import time
from typing import Any, Final

from bench.reliability.hive import HiveError
from bench.reliability.nectarflow import Nectarflow
from bench.reliability.plan import Plan
from bench.reliability.question import Question
from bench.reliability.sight import Sight, difference

from .result import Row
from .swarm import Bee, Swarm, hosts

RUNS: Final = 20
SPEC: Final[dict[str, Any]] = {"modelcell": "fake", "class_path": "fake:tokens=500,tokens_per_s=50", "slots": 8}
HOSTS: Final = ("one", "two")
GAP_S_MAX: Final = 6.0
BACK_TIMEOUT_S: Final = 60.0
INDEXES: Final = (10, 200)
"""The cut comes after so many tokens, drawn anew for each run."""
SEED: Final = 4
QUESTION: Final = Question("fake", "What did the bee see on the way?")


class Cable:
    """An ``on_token`` that pulls the cable of the host that serves, once the answer has grown to an index.

    Attributes:
        bee: The worker behind the cable that was pulled; None when nothing served any more.
    """

    def __init__(self, swarm: Swarm, index: int) -> None:
        self._swarm = swarm
        self._index = index
        self._pulled = False
        self.bee: Bee | None = None
        self.pulled_s = 0.0

    def __call__(self, sight: Sight) -> None:
        """Called by the thread that reads the stream."""
        if self._pulled or sight.count < self._index:
            return
        self._pulled = True
        self.bee = next((bee for bee in self._swarm.bees() if bee.slots_busy), None)
        if self.bee is not None:
            self.pulled_s = time.monotonic()
            self._swarm.machines[self.bee.host].cut()

    def mend(self) -> float | None:
        """Put it back; seconds until the same worker, with the same engine, is healthy again, None if it never is."""
        assert self.bee is not None, "the cable was pulled"
        before, mended_s = self.bee, time.monotonic()
        self._swarm.machines[before.host].mend()

        def back() -> bool:
            found = next((bee for bee in self._swarm.bees() if bee.rustbee_id == before.rustbee_id), None)
            return found is not None and found.status == "healthy" and found.engine_pid == before.engine_pid

        try:
            self._swarm.until(back, BACK_TIMEOUT_S, f"{before.rustbee_id} back")
        except HiveError:
            return None
        return time.monotonic() - mended_s


class Link:
    """A network that fails and heals."""

    name = "link"
    about = "two hosts with a fake engine each, the cable of the serving one pulled in mid-answer and put back later"

    def run(self, plan: Plan) -> list[Row]:
        """See `Scenario`."""
        gaps: list[float] = []
        backs: list[float] = []
        wrong: list[str] = []
        hit = 0
        draw = random.Random(SEED)  # noqa: S311 - where each cut comes, drawn alike in every run of the harness
        with hosts(HOSTS) as swarm:
            for name in HOSTS:
                swarm.spawn_on(name, SPEC)
            swarm.healthy(len(HOSTS))
            flow = Nectarflow(swarm.queen)
            unbroken = flow.ask(QUESTION)
            if not unbroken.whole:
                raise HiveError(f"the unbroken answer ended in {unbroken.error or 'nothing'}")
            for turn in range(plan.count(RUNS)):
                cable = Cable(swarm, draw.randint(*INDEXES))
                seen = flow.ask(QUESTION, cable)
                if cable.bee is None:
                    continue
                hit += 1
                silence = seen.silence(cable.pulled_s)
                gaps += [silence.gap_ms / 1000] if silence else []
                wrong += [f"run {turn + 1}: {problem}" for problem in _problems(seen, unbroken)]
                back_s = cable.mend()
                if back_s is None:
                    wrong.append(f"run {turn + 1}: {cable.bee.rustbee_id} did not come back with its engine")
                    break
                backs.append(back_s)
                plan.say(f"{self.name} {turn + 1}: gap {gaps[-1] if gaps else -1:.2f} s, back after {back_s:.2f} s")
        problems = tuple(wrong) if hit else ("no cable was pulled in mid-answer",)
        return [
            Row(
                what="longest silence of an answer whose host was cut off",
                values=tuple(gaps),
                limit=GAP_S_MAX,
                problems=problems,
            ),
            Row(what="from the link's return until the same rustbee, same engine, is healthy", values=tuple(backs)),
        ]


def _problems(seen: Sight, unbroken: Sight) -> list[str]:
    differs = difference(seen, unbroken)
    ended = [f"ended in {seen.error}"] if seen.error else []
    counts = f"{differs.lost} tokens lost, {differs.doubled} doubled"
    return [*ended, *differs.odd, *([] if differs.identical else [f"not the unbroken answer: {counts}"])]
