"""The recital: llama.cpp, the demo model, a song it knows by heart, and rustbees that die in the middle of it."""

from __future__ import annotations

import random
from contextlib import closing
from typing import Any, Final

from .case import Case
from .chat import Chat
from .faults import Fault
from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .question import Question, Surface
from .result import Outcome, Row, row_of

SPEC: Final[dict[str, Any]] = {"type": "cpu", "modelcell": "demo"}
SONG: Final = Question("demo", "Recite the song of the hive.", {"temperature": 0})
TOKENS_MIN: Final = 400
RUNS: Final = 50
KILLS: Final = (1, 2, 3)
LATEST: Final = 0.9
"""Share of the answer after which no fault is tried: the engine is ahead of what the client has read."""
SEED: Final = 20


class Recital:
    """Every kill is compared with the unbroken answer, byte by byte."""

    name = "recital"
    about = "llama.cpp, demo modelcell, the song of the hive, temperature 0"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        outcome = Outcome()
        with Hive() as hive, closing(Chat(hive.openai_url, hive.key)) as chat:
            for surface in (Nectarflow(hive.queen), chat):
                for fault in (Fault.ENGINE_KILLED, Fault.RUSTBEE_KILLED):
                    for kills in KILLS:
                        outcome.rows.append(plan.saw(_row(plan, hive, surface, fault, kills)))
        return outcome


def _row(plan: Plan, hive: Hive, surface: Surface, fault: Fault, kills: int) -> Row:
    hive.keep(SPEC, kills + 1)
    unbroken = surface.ask(SONG)
    assert unbroken.whole, f"the unbroken answer ended in {unbroken.error}"
    assert unbroken.count >= TOKENS_MIN, f"the song has only {unbroken.count} tokens"
    words = f"{'' if kills == 1 else f'{kills} x '}{fault.value}, {surface.name}"
    case = Case("recital", words, hive, SPEC, surface, SONG, unbroken, fault)
    count = plan.count(RUNS)
    runs = [plan.journal.write(case.run(indexes)) for indexes in spread(count, kills, int(unbroken.count * LATEST))]
    return row_of(runs, "identical, usage equal", wanted=count)


def spread(runs: int, kills: int, last_index: int) -> list[tuple[int, ...]]:
    """Where to strike in each run: evenly over the answer for one kill, drawn (with a fixed seed) for several."""
    if kills == 1:
        return [(1 + round(turn * (last_index - 1) / max(1, runs - 1)),) for turn in range(runs)]
    draw = random.Random(SEED + kills)  # noqa: S311 - places in a text, drawn alike in every run of the harness
    return [tuple(sorted(draw.sample(range(1, last_index + 1), kills))) for _ in range(runs)]
