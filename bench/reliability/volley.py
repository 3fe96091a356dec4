"""Many streams at once, each at a token of its own when the engine that serves them is killed.

One kill cuts as many streams as the engine has, each somewhere else, so that every index of an answer is tried with
a few dozen kills. The engine is stopped first and everything it had sent is read; what each client has then is where
its stream is cut, exactly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .faults import Blow, Fault, strike_at
from .hive import Hive, Rustbee
from .nectarflow import Nectarflow
from .question import Question, Surface, ignore
from .sight import Sight

SETTLE_S: Final = 0.05
"""After so long everything a stopped engine has sent is read."""
JOIN_S: Final = 120.0
WARM_UP_TOKENS: Final = 1
"""A stream's first token comes about so many token times after it was asked for."""


@dataclass
class Shot:
    """One stream of a volley.

    Attributes:
        cut_index: Pieces the client had when the engine was killed.
        hit: Whether this was one of that engine's streams, and under way.
    """

    question: Question
    target: int
    sight: Sight = field(default_factory=Sight)
    cut_index: int = 0
    hit: bool = False


class Volley:
    """Streams that begin one after another, so that the k-th is at its target when the first is at its own.

    Args:
        targets: Where each stream shall be cut; the highest leads.
    """

    def __init__(self, hive: Hive, surface: Surface, questions: Sequence[Question], targets: Sequence[int]) -> None:
        self._hive = hive
        self._surface = surface
        ordered = sorted(targets, reverse=True)
        self.shots = [Shot(questions[turn % len(questions)], target) for turn, target in enumerate(ordered)]
        self._begin = [threading.Event() for _ in self.shots]
        self._reached = threading.Event()
        self.blow: Blow | None = None

    def fire(self) -> None:
        """Begin, kill, and read every stream to its end."""
        threads = [threading.Thread(target=self._stream, args=(turn,), daemon=True) for turn in range(len(self.shots))]
        for thread in threads:
            thread.start()
        self._begin[0].set()
        self._reached.wait(JOIN_S)
        rustbee = self._rustbee_of(self.shots[0].sight)
        if rustbee is not None:
            self.blow = strike_at(self._hive, rustbee, Fault.ENGINE_KILLED, lambda: self._settle(rustbee.rustbee_id))
        for thread in threads:
            thread.join(JOIN_S)
        assert not any(thread.is_alive() for thread in threads), f"a stream did not end within {JOIN_S:g} s"

    def _stream(self, turn: int) -> None:
        shot = self.shots[turn]
        self._begin[turn].wait(JOIN_S)
        self._surface.ask(shot.question, self._lead if turn == 0 else ignore, shot.sight)
        if turn == 0:  # It may have ended before its target; nobody shall wait for it then.
            self._lead(shot.sight)
            self._reached.set()

    def _lead(self, sight: Sight) -> None:
        """Called after each of the leader's tokens."""
        leader = self.shots[0]
        for shot, begin in zip(self.shots, self._begin, strict=True):
            if sight.count + WARM_UP_TOKENS >= leader.target - shot.target or sight.ended_s is not None:
                begin.set()
        if sight.count >= leader.target:
            self._reached.set()

    def _settle(self, killed_id: str) -> None:
        time.sleep(SETTLE_S)
        for shot in self.shots:
            shot.cut_index = shot.sight.count
            shot.hit = not shot.sight.whole and self._is_served_by(killed_id, shot)

    def _is_served_by(self, rustbee_id: str, shot: Shot) -> bool:
        name = self._rustbee_id(shot.sight)
        # A chat names its rustbee with its first token. One that has had neither for so long is the stopped one's.
        nameless = not name and not shot.sight.count and self._begin[self.shots.index(shot)].is_set()
        return nameless or rustbee_id in name

    def _rustbee_of(self, sight: Sight) -> Rustbee | None:
        name = self._rustbee_id(sight)
        return next((row for row in self._hive.rustbees() if row.rustbee_id in name and row.engine_pid), None)

    def _rustbee_id(self, sight: Sight) -> str:
        if sight.rustbee_id or not sight.job_id:
            return sight.rustbee_id
        return str(Nectarflow(self._hive.queen).view(sight.job_id)["rustbee_id"])
