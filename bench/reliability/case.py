"""One question, the answer it gets when nothing breaks, and the same answer broken at chosen tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .faults import Cutter, Fault
from .hive import Hive
from .question import Question, Surface
from .result import Run
from .sight import Difference, Sight, Silence, difference

TRIES: Final = 4
STEP_BACK: Final = 25
"""Tokens by which a try comes earlier than the one before, which came when the engine had already finished."""


@dataclass(frozen=True)
class Case:
    """What is asked of whom, and what is done to them.

    Attributes:
        words: How the table calls the fault.
        spec: Of the rustbees, as the body of a spawn.
        spares: Healthy rustbees there have to be beside those that are broken.
    """

    scenario: str
    words: str
    hive: Hive
    spec: Mapping[str, Any]
    surface: Surface
    question: Question
    unbroken: Sight
    fault: Fault
    spares: int = 1

    def run(self, indexes: tuple[int, ...]) -> Run:
        """Ask until every fault hit while the answer was under way, at most `TRIES` times."""
        seen, cutter = self._ask(indexes)
        for turn in range(1, TRIES):
            if not cutter.too_late:
                break
            seen, cutter = self._ask(tuple(max(1, index - turn * STEP_BACK) for index in indexes))
        return self._compared(seen, cutter, indexes[0])

    def _ask(self, indexes: tuple[int, ...]) -> tuple[Sight, Cutter]:
        self.hive.keep(self.spec, len(indexes) + self.spares)
        cutter = Cutter(self.hive, self.question.modelcell, self.fault, indexes)
        return self.surface.ask(self.question, cutter), cutter

    def _compared(self, seen: Sight, cutter: Cutter, asked_index: int) -> Run:
        differs = difference(seen, self.unbroken)
        silence = longest_silence(seen, cutter)
        return Run(
            scenario=self.scenario,
            fault=self.words,
            asked_index=asked_index,
            cut_index=silence.index if silence else None,
            mid_stream=bool(cutter.blows) and not cutter.too_late,
            identical=differs.identical,
            usage_equal=differs.usage_equal,
            lost=differs.lost,
            doubled=differs.doubled,
            detected_ms=self._detected_ms(seen, cutter),
            gap_ms=silence.gap_ms if silence else None,
            recovered_ms=silence.recovered_ms if silence else None,
            problems=problems(seen, differs),
        )

    def _detected_ms(self, seen: Sight, cutter: Cutter) -> float | None:
        if not cutter.blows:
            return None
        detected_ms, ended_s = cutter.detected_ms(), seen.ended_s
        lasted_ms = 1000 * (ended_s - cutter.blows[0].struck_s) if ended_s is not None else 0.0
        # What was only stopped is ended by the harness when the answer is over, and an alarm about that says nothing.
        late = not self.fault.kills and detected_ms is not None and detected_ms > lasted_ms
        return None if late else detected_ms


def longest_silence(seen: Sight, cutter: Cutter) -> Silence | None:
    """The longest of those after each blow; there is none where the answer never went on."""
    ends: list[float | None] = [blow.struck_s for blow in cutter.blows[1:]]
    pairs = zip(cutter.blows, [*ends, None], strict=True) if cutter.blows and seen.whole else ()
    found = [seen.silence(blow.struck_s, until_s) for blow, until_s in pairs]
    return max((each for each in found if each is not None), key=lambda each: each.gap_ms, default=None)


def problems(seen: Sight, differs: Difference) -> tuple[str, ...]:
    """What is wrong with a broken run, in words."""
    found = list(differs.odd)
    if seen.error:
        found.append(f"ended in {seen.error}")
    elif not differs.identical:
        found.append("the text differs")
    elif not differs.usage_equal:
        found.append(f"usage {seen.usage}")
    return tuple(found)
