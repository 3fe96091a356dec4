"""The deterministic fake engine, killed at every token of an answer: here everything has to be equal, every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import msgspec

from .case import problems
from .chat import Chat
from .faults import Blow, Fault, alarm_ms
from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .question import Question, Surface
from .result import Outcome, Row, Run, row_of
from .sight import ANSWER, Sight, difference
from .variants import PROMPTS, Variant, for_both, for_chat
from .volley import Shot, Volley

SPEC: Final[dict[str, Any]] = {
    "modelcell": "fake",
    "class_path": "fake:tokens=300,tokens_per_s=100,prefill_ms=20",
    "slots": 32,
}
STREAMS: Final = 24
ROUNDS_MAX: Final = 15
"""Volleys for each that would do if every stream were cut exactly where it should be."""
GOAL: Final = "identical, usage equal, at every index"

Answers = Mapping[str, Sight]


class Fake:
    """Kills at every token index, for both surfaces and every shape of answer."""

    name = "fake"
    about = "deterministic fake engine, many streams at once, cut at every token index from 0 to 256"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        outcome = Outcome()
        with Hive() as hive, closing(Chat(hive.openai_url, hive.key)) as chat:
            hive.keep(SPEC, 2)
            flow = Nectarflow(hive.queen)
            both = for_both(plan, flow.ask(Question("fake", PROMPTS[0])).texts[ANSWER])
            for surface, variants in ((flow, both), (chat, both + for_chat(plan))):
                for variant in variants:
                    outcome.rows += _rows(plan, hive, surface, variant)
        return outcome


def _rows(plan: Plan, hive: Hive, surface: Surface, variant: Variant) -> list[Row]:
    words = f"{Fault.ENGINE_KILLED.value}, {surface.name}, {variant.words}"
    answers = {question.prompt: surface.ask(question) for question in variant.questions()}
    failed = [each for each in answers.values() if not each.whole or variant.channel not in each.texts]
    if failed:
        reason = f"the unbroken answer has no {variant.channel!r} {failed[0].error}".strip()
        return [plan.saw(Row("fake", words, 0, GOAL, held=False, problems=(reason,)))]
    # A short answer, such as a tool call, can be cut only where it has something.
    targets = {index for index in variant.targets if index < min(each.count for each in answers.values())}
    pairs = list(_cuts(plan, hive, surface, variant, answers, words, targets))
    runs = [run for run, _ in pairs]
    missing = targets - {run.cut_index for run in runs if run.mid_stream}
    also = {"indexes": f"{len(targets - missing)} of {len(targets)}"}
    never = (f"never cut at {sorted(missing)}",) if missing else ()
    rows = [row_of(runs, GOAL, wanted=1, also=also, wrong=never)]
    inside = [run for run, shot in pairs if _at_multi_byte(shot, answers)]
    if variant.words == "plain" and inside:
        words = f"{words}, multi-byte characters at the cut"
        rows.append(row_of([msgspec.structs.replace(run, fault=words) for run in inside], GOAL, wanted=1))
    return [plan.saw(row) for row in rows]


def _cuts(
    plan: Plan,
    hive: Hive,
    surface: Surface,
    variant: Variant,
    answers: Answers,
    words: str,
    targets: set[int],
) -> Iterator[tuple[Run, Shot]]:
    """Fire until every index was cut at."""
    needed = set(targets)
    for _ in range(ROUNDS_MAX * (1 + len(needed) // (STREAMS // 2))):
        if not needed:
            return
        hive.keep(SPEC, 2)
        volley = Volley(hive, surface, variant.questions(), _aims(needed))
        volley.fire()
        if volley.blow is None:
            continue
        detected_ms = alarm_ms(hive, volley.blow)
        for shot in volley.shots:
            if shot.hit:
                run = _run(shot, answers[shot.question.prompt], volley.blow, words, detected_ms)
                needed.discard(shot.cut_index)
                yield plan.journal.write(run), shot


def _aims(needed: set[int]) -> list[int]:
    """The targets of one volley: the needed ones evenly thinned, or repeated, to as many as there are streams."""
    ordered = sorted(needed)
    return [ordered[turn * len(ordered) // STREAMS] for turn in range(STREAMS)]


def _run(shot: Shot, unbroken: Sight, blow: Blow, words: str, detected_ms: float | None) -> Run:
    differs = difference(shot.sight, unbroken)
    silence = shot.sight.silence(blow.struck_s) if shot.sight.whole else None
    return Run(
        scenario="fake",
        fault=words,
        asked_index=shot.target,
        cut_index=shot.cut_index,
        identical=differs.identical,
        usage_equal=differs.usage_equal,
        lost=differs.lost,
        doubled=differs.doubled,
        detected_ms=detected_ms,
        gap_ms=silence.gap_ms if silence else None,
        recovered_ms=silence.recovered_ms if silence else None,
        problems=problems(shot.sight, differs),
    )


def _at_multi_byte(shot: Shot, answers: Answers) -> bool:
    pieces = answers[shot.question.prompt].texts.get(ANSWER, [])
    return not "".join(pieces[max(0, shot.cut_index - 1) : shot.cut_index + 1]).isascii()
