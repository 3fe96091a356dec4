"""Asking several things at the same time, each by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from .question import Question, Surface
from .sight import Sight


class Together:
    """Questions under way; their `sights` fill while they run."""

    def __init__(self, surface: Surface, questions: Sequence[Question]) -> None:
        self.sights = [Sight() for _ in questions]
        self._threads = [
            threading.Thread(target=surface.ask, args=(question,), kwargs={"sight": sight}, daemon=True)
            for question, sight in zip(questions, self.sights, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> list[Sight]:
        """Read them all to their ends."""
        for thread in self._threads:
            thread.join()
        return self.sights


def answers_to(surface: Surface, questions: Sequence[Question]) -> dict[str, Sight]:
    """What each prompt is answered while nobody breaks anything."""
    sights = Together(surface, questions).join()
    return dict(zip([question.prompt for question in questions], sights, strict=True))
