"""Ten thousand detached submissions while the queen is killed again and again: each that was taken ends once."""

from __future__ import annotations

import itertools
import random
import threading
import time
from typing import Any, Final

from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .promises import Promises
from .queen_lives import PROBE, Death, kill_and_start
from .question import Question
from .result import Outcome, Row, Spread

SPEC: Final[dict[str, Any]] = {"modelcell": "fake", "class_path": "fake:tokens=5", "slots": 64}
SUBMISSIONS: Final = 10_000
DEATHS: Final = 20
CONNECTIONS: Final = 16
PROMPTS: Final = 10
SEED: Final = 5
POLL_S: Final = 0.002
QUEENNODE: Final = {"queue_max_per_key": "100000"}


class Detached:
    """Submissions with ``Idempotency-Key`` from many connections; what is not acknowledged is sent again."""

    name = "detached"
    about = f"fake engine, {SUBMISSIONS:,} detached nectarflows, the queen killed {DEATHS} times at a random moment"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        with Hive(QUEENNODE) as hive:
            hive.keep(SPEC, 2)
            hive.keep(PROBE, 1)
            return Outcome([plan.saw(_row(plan, hive))])


def _row(plan: Plan, hive: Hive) -> Row:
    flow = Nectarflow(hive.queen)
    answers = {question.prompt: flow.ask(question) for question in map(_question, range(PROMPTS))}
    promises = Promises(flow)
    kills = plan.count(DEATHS)
    total = SUBMISSIONS * kills // DEATHS
    deaths = _submit_and_kill(hive, promises, total, kills)
    kept = promises.kept(answers)
    again = sum(promise.tries > 1 for promise in promises.made)
    routed = Spread.of(death.routed_ms for death in deaths)
    missing = total - promises.count
    return Row(
        scenario="detached",
        fault="kill -9 of the queen",
        runs=len(deaths),
        goal="every acknowledged task ends once, with its answer",
        held=kept.all and not missing,
        identical=1 - (kept.lost + kept.doubled + kept.unequal) / max(1, promises.count),
        recovered=routed,
        also={
            "submissions": f"{promises.count:,} acknowledged of {total:,}, {again} of them sent more than once",
            "tasks": f"{kept.lost} lost, {kept.doubled} doubled, {kept.unequal} with another answer",
        },
        problems=kept.problems[:3] + ((f"{missing} were never acknowledged",) if missing else ()),
    )


def _question(number: int) -> Question:
    return Question("fake", f"What did bee number {number % PROMPTS} bring?")


def _submit_and_kill(hive: Hive, promises: Promises, total: int, kills: int) -> list[Death]:
    """Each death comes at a random moment of its share of the submissions."""
    numbers = itertools.count()  # Drawing from it is one step, so that threads may share it.

    def submit() -> None:
        for number in iter(lambda: next(numbers), None):
            if number >= total:
                return
            promises.make(_question(number), f"detached-{number}")

    threads = [threading.Thread(target=submit, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    draw = random.Random(SEED)  # noqa: S311 - when she dies, drawn alike in every run of the harness
    deaths = []
    for turn in range(kills):
        moment = (turn + draw.uniform(0.05, 0.95)) * total / kills
        while promises.count < moment and any(thread.is_alive() for thread in threads):
            time.sleep(POLL_S)
        deaths.append(kill_and_start(hive))
    for thread in threads:
        thread.join()
    return deaths
