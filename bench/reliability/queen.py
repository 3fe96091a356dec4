"""The queen is killed under running streams and waiting tasks, a hundred times in one swarm."""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from .hive import Hive
from .nectarflow import Nectarflow
from .plan import Plan
from .promises import Kept, Promises
from .queen_http import NoAnswerError, RefusedError
from .queen_lives import PROBE, Death, engine_pids, kill_and_start
from .question import Question
from .result import Outcome, Row, Run, Spread
from .sight import Sight, difference
from .together import answers_to

STREAM: Final[dict[str, Any]] = {"modelcell": "stream", "class_path": "fake:tokens=250,tokens_per_s=50", "slots": 10}
QUEUE: Final[dict[str, Any]] = {"modelcell": "queue", "class_path": "fake:tokens=10,tokens_per_s=50", "slots": 4}
STREAMS: Final = 20
QUEUED: Final = 200
RUNS: Final = 100
RUSTBEES: Final = 4
ROUTED_MS_MAX: Final = 3_000
BETWEEN_S: Final = (0.2, 1.2)
"""Shortest and longest time a queen lives once she routes."""
REFILL_EVERY_S: Final = 0.1
SEED: Final = 4
GOAL: Final = "0 tasks lost, 0 doubled, 0 engines restarted, order kept, streams identical, routed within 3 s at p99"


@dataclass
class _Load:
    """Streams and waiting tasks, kept up by threads of their own until `over` is set."""

    flow: Nectarflow
    streams: Promises
    queued: Promises
    sights: list[Sight] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        """One thread for each stream, one for the queue."""
        targets: list[Any] = [*[self._follow] * STREAMS, self._fill]
        threads = [threading.Thread(target=target, args=(turn,), daemon=True) for turn, target in enumerate(targets)]
        for thread in threads:
            thread.start()
        return threads

    def _follow(self, place: int) -> None:
        for turn in itertools.count():
            if self.over.is_set():
                return
            promise = self.streams.make(stream_question(place), f"stream-{place}-{turn}")
            if promise is not None:
                sight = Sight()
                self.sights.append(sight)
                self.flow.follow(promise.job_id, sight=sight)

    def _fill(self, _: int) -> None:
        numbers = itertools.count()
        while not self.over.wait(REFILL_EVERY_S):
            for _ in range(QUEUED - self.depth()):
                number = next(numbers)
                self.queued.make(queue_question(number), f"queued-{number}")

    def depth(self) -> int:
        """Tasks that wait; as many as there should be while nobody can tell."""
        try:
            return int(self.flow.health()["queue_depth"])
        except (NoAnswerError, RefusedError):
            return QUEUED


def stream_question(place: int) -> Question:
    """What one of the followers asks for."""
    return Question("stream", f"What did bee number {place % STREAMS} do?")


def queue_question(number: int) -> Question:
    """What one of the waiting tasks asks for."""
    return Question("queue", f"What will bee number {number % STREAMS} do?")


class Queen:
    """``kill -9`` of the queen."""

    name = "queen"
    about = f"fake engine, {STREAMS} followed streams and {QUEUED} waiting tasks, the queen killed and started again"

    def run(self, plan: Plan) -> Outcome:
        """See `Scenario`."""
        with Hive() as hive:
            for spec, count in ((STREAM, 2), (QUEUE, 1), (PROBE, 1)):
                hive.keep(spec, count)
            return Outcome([plan.saw(_row(plan, hive))])


def _row(plan: Plan, hive: Hive) -> Row:
    flow = Nectarflow(hive.queen)
    answers = answers_to(flow, [queue_question(number) for number in range(STREAMS)])
    answers |= answers_to(flow, [stream_question(place) for place in range(STREAMS)])
    load = _Load(flow, Promises(flow), Promises(flow))
    engines = engine_pids(hive, RUSTBEES)
    threads = load.start()
    hive.until(lambda: load.depth() >= QUEUED // 2 and len(load.sights) >= STREAMS, 60, "streams and a queue")
    deaths, restarted = [], 0
    draw = random.Random(SEED)  # noqa: S311 - how long each life lasts, drawn alike in every run of the harness
    for _ in range(plan.count(RUNS)):
        time.sleep(draw.uniform(*BETWEEN_S))
        deaths.append(kill_and_start(hive))
        now = engine_pids(hive, RUSTBEES)
        restarted += sum(now.get(name) != pid for name, pid in engines.items())
        engines = now
    load.over.set()
    for thread in threads:
        thread.join()
    return _judged(plan, load, answers, deaths, restarted)


def _judged(plan: Plan, load: _Load, answers: dict[str, Sight], deaths: list[Death], restarted: int) -> Row:
    kept = (load.queued.kept(answers), load.streams.kept(answers))
    prompts = {promise.job_id: promise.question.prompt for promise in load.streams.made}
    runs = [plan.journal.write(_seen(sight, answers[prompts[sight.job_id]], deaths)) for sight in load.sights]
    routed = Spread.of(death.routed_ms for death in deaths)
    displaced = out_of_order(load)
    assert routed is not None, "the queen died at least once"
    whole = all(run.identical and run.usage_equal for run in runs)
    return Row(
        scenario="queen",
        fault="kill -9 of the queen",
        runs=len(deaths),
        goal=GOAL,
        held=whole and not (restarted or displaced) and routed.p99 <= ROUTED_MS_MAX and all(each.all for each in kept),
        lost=sum(run.lost for run in runs),
        doubled=sum(run.doubled for run in runs),
        identical=sum(run.identical for run in runs) / len(runs),
        gap=Spread.of(gap for sight in load.sights for gap in gaps_ms(sight, deaths)),
        recovered=routed,
        also={
            "recovered is": "from the start of the queen to the first routed request",
            "streams": f"{len(runs)}, {sum(not run.identical for run in runs)} not identical",
            "tasks that waited": _in_words(load.queued, kept[0]),
            "tasks that streamed": _in_words(load.streams, kept[1]),
            "out of order": str(displaced),
            "engines restarted": str(restarted),
        },
        problems=tuple(dict.fromkeys(word for run in runs for word in run.problems))[:3]
        + tuple(word for each in kept for word in each.problems[:3]),
    )


def _in_words(promises: Promises, kept: Kept) -> str:
    return f"{promises.count} taken, {kept.lost} lost, {kept.doubled} doubled, {kept.unequal} with another answer"


def _seen(sight: Sight, unbroken: Sight, deaths: list[Death]) -> Run:
    differs = difference(sight, unbroken)
    return Run(
        scenario="queen",
        fault="kill -9 of the queen",
        identical=differs.identical,
        usage_equal=differs.usage_equal,
        lost=differs.lost,
        doubled=differs.doubled,
        gap_ms=max(gaps_ms(sight, deaths), default=None),
        problems=(*differs.odd, *((f"ended in {sight.error}",) if sight.error else ())),
    )


def gaps_ms(sight: Sight, deaths: list[Death]) -> list[float]:
    """The longest silence of a stream around each death it lived through."""
    if not sight.moments_s or sight.ended_s is None:
        return []
    inside = [death for death in deaths if sight.moments_s[0] < death.killed_s < sight.ended_s]
    nexts: list[float | None] = [death.killed_s for death in inside[1:]]
    pairs = zip(inside, [*nexts, None], strict=True) if inside else ()
    found = [sight.silence(death.killed_s, until_s) for death, until_s in pairs]
    return [silence.gap_ms for silence in found if silence is not None]


def out_of_order(load: _Load) -> int:
    """Waiting tasks that ended further from their place in the queue than tasks side by side can."""
    views = [load.flow.view(promise.job_id) for promise in load.queued.made]
    ended = sorted((view["finished_at"], place) for place, view in enumerate(views) if view["finished_at"])
    reach = 2 * QUEUE["slots"]
    return sum(abs(rank - place) > reach for rank, (_, place) in enumerate(ended))
