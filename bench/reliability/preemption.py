"""Interactive requests while batch work has every slot: how long to the first token, with preemption and without."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .chat import Chat
from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .promises import Kept, Promises
from .queen_http import NoAnswerError, RefusedError
from .question import Question
from .result import Outcome, Row, Spread, Table
from .sight import Sight, difference
from .together import answers_to

SPEC: Final[dict[str, Any]] = {"modelcell": "fake", "class_path": "fake:tokens=200,tokens_per_s=50", "slots": 4}
RUSTBEES: Final = 2
WAITING: Final = 16
"""Batch tasks that wait behind those that run."""
RUNS: Final = 100
EVERY_S: Final = 0.5
PROMPTS: Final = 8
INTERACTIVE_TOKENS: Final = 10
REFILL_EVERY_S: Final = 0.1


@dataclass
class _Batch:
    """Low-priority nectarflows, kept up until `over` is set."""

    promises: Promises
    depth: Callable[[], int]
    over: threading.Event = field(default_factory=threading.Event)

    def fill(self) -> None:
        """Run in a thread of its own."""
        numbers = itertools.count()
        while not self.over.is_set():
            for _ in range(WAITING - self.depth()):
                number = next(numbers)
                self.promises.make(_batch(number), f"batch-{number}")
            self.over.wait(REFILL_EVERY_S)


@dataclass
class _Measured:
    """One setting's figures."""

    waits_ms: list[float]
    wrong: int
    kept: Kept
    taken: int
    preempted: int


class Preemption:
    """The same load on two swarms that differ in one setting."""

    name = "preemption"
    about = "fake engine, every slot taken by low-priority nectarflows, high-priority requests arriving"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        figures = {setting: _measure(plan, setting) for setting in ("true", "false")}
        cells = [_cells(setting, measured) for setting, measured in figures.items()]
        head = ("queennode.preemption", "requests", "wait p50, ms", "wait p99, ms", "batch tasks", "lost or unequal")
        table = Table("Interactive wait under a saturated batch load", head, tuple(cells))
        idle = figures["true"].preempted == 0
        rows = [plan.saw(_row(setting, measured)) for setting, measured in figures.items()]
        return Outcome([replace(rows[0], held=rows[0].held and not idle), *rows[1:]], [table])


def _batch(number: int) -> Question:
    # Of several lengths, so that slots become free one by one.
    options = {"priority": "low", "max_tokens": 200 - 15 * (number % PROMPTS)}
    return Question("fake", f"What did bee number {number % PROMPTS} write?", options)


def _interactive(number: int) -> Question:
    options = {"priority": "high", "max_tokens": INTERACTIVE_TOKENS}
    return Question("fake", f"What did bee number {number % PROMPTS} say?", options)


def _measure(plan: Plan, setting: str) -> _Measured:
    with Hive({"preemption": setting}) as hive, closing(Chat(hive.openai_url, hive.key)) as chat:
        hive.keep(SPEC, RUSTBEES)
        flow = Nectarflow(hive.queen)
        answers = answers_to(flow, [_batch(number) for number in range(PROMPTS)])
        spoken = answers_to(chat, [_interactive(number) for number in range(PROMPTS)])
        batch = _Batch(Promises(flow), lambda: _depth(flow))
        filler = threading.Thread(target=batch.fill, daemon=True)
        filler.start()
        hive.until(lambda: _depth(flow) >= WAITING // 2, 30, "a saturated swarm")
        seen = [_ask(chat, number) for number in range(plan.count(RUNS))]
        batch.over.set()
        filler.join()
        views = [flow.view(promise.job_id) for promise in batch.promises.made]
        kept = batch.promises.kept(answers)
        wrong = [difference(sight, spoken[_interactive(number).prompt]) for number, (sight, _) in enumerate(seen)]
        return _Measured(
            [wait for _, wait in seen if wait is not None],
            sum(not each.identical for each in wrong),
            kept,
            batch.promises.count,
            sum(view["attempts"] > 1 for view in views),
        )


def _ask(chat: Chat, number: int) -> tuple[Sight, float | None]:
    started_s = time.monotonic()
    sight = chat.ask(_interactive(number))
    wait_ms = 1000 * (sight.moments_s[0] - started_s) if sight.moments_s else None
    time.sleep(max(0.0, started_s + EVERY_S - time.monotonic()))
    return sight, wait_ms


def _depth(flow: Nectarflow) -> int:
    try:
        return int(flow.health()["queue_depth"])
    except (NoAnswerError, RefusedError):
        return WAITING


def _cells(setting: str, measured: _Measured) -> tuple[str, ...]:
    spread = Spread.of(measured.waits_ms)
    waits = (f"{spread.p50:,.0f}", f"{spread.p99:,.0f}") if spread else ("-", "-")
    lost = measured.kept.lost + measured.kept.doubled + measured.kept.unequal
    return (setting, str(len(measured.waits_ms)), *waits, str(measured.taken), str(lost))


def _row(setting: str, measured: _Measured) -> Row:
    return Row(
        scenario="preemption",
        fault="a slot taken from a low task" if setting == "true" else "none, preemption off",
        runs=len(measured.waits_ms),
        goal=f"no batch token lost, no request unanswered{', tasks were preempted' if setting == 'true' else ''}",
        held=measured.kept.all and not measured.wrong,
        identical=1 - (measured.kept.lost + measured.kept.doubled + measured.kept.unequal) / max(1, measured.taken),
        recovered=Spread.of(measured.waits_ms),
        also={
            "recovered is": "from an interactive request to its first token",
            "batch tasks": f"{measured.taken}, {measured.preempted} of them on more than one attempt by the end",
            "interactive answers not as expected": str(measured.wrong),
        },
        problems=measured.kept.problems[:3],
    )
