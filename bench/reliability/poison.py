"""A request that crashes engines: it may take two with it, and then nobody else's answer."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Final

from .chat import Chat
from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .question import Question, Surface
from .result import Outcome, Row, Run, row_of
from .sight import Sight, difference
from .together import Together

SPEC: Final[dict[str, Any]] = {
    "modelcell": "fake",
    "class_path": "fake:tokens=200,tokens_per_s=50,crash_at=20",
    "slots": 8,
}
RUSTBEES: Final = 3
BYSTANDERS: Final = 6
RUNS: Final = 10
ENGINES_MAX: Final = 2
AT_ONCE_S: Final = 1.0
CODE: Final = "failed_poison"
REFUSALS: Final = (CODE, "quarantined")
HEAD_START_S: Final = 0.5
"""How long the bystanders run before the poison comes."""
GOAL: Final = f"ends in {CODE} after at most {ENGINES_MAX} engines, its twin is refused at once, bystanders identical"


class Poison:
    """The fake engine crashes when a conversation with the word in it reaches a token."""

    name = "poison"
    about = "fake engine that crashes at token 20 of a poisoned conversation, with bystanders on the same engines"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        with Hive() as hive, closing(Chat(hive.openai_url, hive.key)) as chat:
            surfaces: list[Surface] = [Nectarflow(hive.queen), chat]
            return Outcome([plan.saw(_row(plan, hive, surface)) for surface in surfaces])


def _row(plan: Plan, hive: Hive, surface: Surface) -> Row:
    hive.keep(SPEC, RUSTBEES)
    questions = [Question("fake", f"What did bee number {number} drink?") for number in range(BYSTANDERS)]
    unbroken = Together(surface, questions).join()
    count = plan.count(RUNS)
    runs = []
    for number in range(count):
        poison = Question("fake", f"What is poison number {number} for {surface.name}?")
        runs += [plan.journal.write(run) for run in _runs(hive, surface, poison, questions, unbroken)]
    also = {"poisoned requests": str(count), "runs are": "bystanders"}
    return row_of(runs, GOAL, wanted=count, also=also)


def _runs(
    hive: Hive, surface: Surface, poison: Question, questions: list[Question], unbroken: list[Sight]
) -> list[Run]:
    """One run for every bystander; what the poisoned request itself did wrong stands with the first."""
    before = {row.rustbee_id: row.engine_pid for row in hive.keep(SPEC, RUSTBEES)}
    bystanders = Together(surface, questions)
    time.sleep(HEAD_START_S)
    dead = surface.ask(poison)
    asked_s = time.monotonic()
    twin = surface.ask(poison)
    refused_s = time.monotonic() - asked_s
    rows = {row.rustbee_id: row for row in hive.rustbees()}
    crashed = sum(name not in rows or rows[name].engine_pid != pid for name, pid in before.items())
    hive.keep(SPEC, RUSTBEES)  # Where it took them all with it the bystanders need somebody to go on with.
    sights = bystanders.join()
    wrong = [] if dead.error == CODE else [f"the poisoned request ended in {dead.error or 'an answer'}"]
    wrong += [] if crashed <= ENGINES_MAX else [f"{crashed} engines crashed"]
    wrong += [] if twin.error in REFUSALS else [f"its twin ended in {twin.error or 'an answer'}"]
    wrong += [] if refused_s <= AT_ONCE_S else [f"its twin was refused only after {refused_s:.1f} s"]
    return [
        _run(surface, sight, expected, tuple(wrong) if turn == 0 else ())
        for turn, (sight, expected) in enumerate(zip(sights, unbroken, strict=True))
    ]


def _run(surface: Surface, sight: Sight, unbroken: Sight, wrong: tuple[str, ...]) -> Run:
    differs = difference(sight, unbroken)
    ended = (f"a bystander ended in {sight.error}",) if sight.error else ()
    return Run(
        scenario="poison",
        fault=f"a request that crashes its engine, {surface.name}",
        identical=differs.identical,
        usage_equal=differs.usage_equal,
        lost=differs.lost,
        doubled=differs.doubled,
        problems=(*wrong, *ended, *differs.odd),
    )
