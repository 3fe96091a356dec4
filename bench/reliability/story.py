"""The story: text whose tokens are nearly tied; its rest need not equal the unbroken run, but the seam must be clean.

A prefix computed in one batch differs in its last bits from the same prefix decoded token by token, and a near tie may
fall the other way. What is held here is that nothing shown is taken back, lost or doubled; the share that equals the
unbroken run is printed beside the share in which two unbroken runs equal one another.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Final

import msgspec

from .case import Case
from .chat import Chat
from .faults import Fault
from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .question import OnToken, Question, Surface, ignore
from .recital import LATEST, SPEC, spread
from .result import Outcome, Row, Run, row_of
from .sight import ANSWER, Sight, numbering

HEROES: Final = ("a bee", "an old bee", "a queen", "a bee and the rain", "a bee who counts", "two bees", "a lost bee")
RUNS: Final = 50
MAX_TOKENS: Final = 300
LAST_INDEX: Final = 60
"""The stories have about ninety tokens."""


class Story:
    """Kills in the middle of free text."""

    name = "story"
    about = "llama.cpp, demo modelcell, stories at temperature 0, whose tokens are nearly tied"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        with Hive() as hive, closing(Chat(hive.openai_url, hive.key)) as chat:
            surfaces: list[Surface] = [Nectarflow(hive.queen), chat]
            return Outcome([plan.saw(_row(plan, hive, surface)) for surface in surfaces])


def _row(plan: Plan, hive: Hive, surface: Surface) -> Row:
    hive.keep(SPEC, 2)
    questions = [
        Question("demo", f"Tell me a story about {hero}.", {"temperature": 0, "max_tokens": MAX_TOKENS})
        for hero in HEROES
    ]
    unbroken = [surface.ask(question) for question in questions]
    again = [surface.ask(question) for question in questions]
    alike = sum(one.all_text == other.all_text for one, other in zip(unbroken, again, strict=True))
    runs = []
    for turn, (index,) in enumerate(spread(plan.count(RUNS), 1, LAST_INDEX)):
        place = turn % len(questions)
        runs.append(_told(plan, hive, surface, questions[place], unbroken[place], index))
    hit = [run for run in runs if run.mid_stream]
    equal = sum(run.identical for run in hit)
    also = {
        "equal to the unbroken run": f"{equal} of {len(hit)}",
        "unbroken runs equal to one another": f"{alike} of {len(questions)}",
    }
    row = row_of(
        [msgspec.structs.replace(run, identical=True) for run in runs],
        "a clean seam: nothing shown is lost, doubled or taken back, usage counts what was shown",
        wanted=len(runs),
        also=also,
    )
    return replace(row, identical=equal / len(hit) if hit else None)


def _told(plan: Plan, hive: Hive, surface: Surface, question: Question, unbroken: Sight, index: int) -> Run:
    watched = _Watched(surface)
    words = f"{Fault.ENGINE_KILLED.value}, {surface.name}"
    case = Case("story", words, hive, SPEC, watched, question, unbroken, Fault.ENGINE_KILLED)
    index = max(1, min(index, int(unbroken.count * LATEST)))
    run = case.run((index,))
    problems = tuple(seam_problems(watched.last, hive))
    if watched.last.whole:  # Else what is missing from the unbroken answer is what was lost.
        more = _more_than_shown(watched.last)
        run = msgspec.structs.replace(run, lost=max(0, more), doubled=max(0, -more))
    return plan.journal.write(msgspec.structs.replace(run, usage_equal=True, problems=problems))


class _Watched:
    """A surface that remembers what it saw last."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self.name = surface.name
        self.last = Sight()

    def ask(self, question: Question, on_token: OnToken = ignore, sight: Sight | None = None) -> Sight:
        """See `Surface`."""
        self.last = self._surface.ask(question, on_token, sight)
        return self.last


def _more_than_shown(seen: Sight) -> int:
    """Tokens that usage counts and the client did not get, or below zero got twice; a token is a piece here."""
    ends = 1 if seen.finish_reasons.get(ANSWER) == "stop" else 0  # The end mark is a token without text.
    return seen.usage.get("completion_tokens", 0) - ends - seen.count


def seam_problems(seen: Sight, hive: Hive) -> list[str]:
    """What is wrong with an answer that need not equal any other."""
    found = [*seen.odd, *numbering(seen.seqs)]
    if seen.error:
        return [*found, f"ended in {seen.error}"]
    if more := _more_than_shown(seen):
        found.append(f"{seen.count} tokens were shown, usage counts {more:+} more")
    if seen.job_id and Nectarflow(hive.queen).tokens(seen.job_id)["text"] != seen.text:
        found.append("the hivecomb holds another text than the client saw")
    return found
