"""Tasks the queen has taken, sent again with the same key until she says so, and counted when all is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .nectarflow import Nectarflow
from .queen_http import NoAnswerError, RefusedError
from .question import Question
from .sight import Sight

AGAIN_EVERY_S: Final = 0.02
TAKEN_WITHIN_S: Final = 60.0
DONE_WITHIN_S: Final = 180.0
FINAL: Final = ("done", "failed", "cancelled")
PROBLEMS_MAX: Final = 10


@dataclass(frozen=True)
class Promise:
    """One acknowledged task; ``tries`` counts how often it had to be sent."""

    key: str
    question: Question
    job_id: str
    tries: int


@dataclass
class Kept:
    """What became of them.

    Attributes:
        lost: Unknown, unfinished or failed though they were taken.
        doubled: Their key now names another task, or the hivecomb holds more events than the answer has.
        unequal: Done, with another text or usage than expected.
    """

    lost: int = 0
    doubled: int = 0
    unequal: int = 0
    problems: tuple[str, ...] = ()

    @property
    def all(self) -> bool:
        """Whether every one ended once, and well."""
        return not (self.lost or self.doubled or self.unequal)


class Promises:
    """Submissions of any number of threads."""

    def __init__(self, flow: Nectarflow) -> None:
        self._flow = flow
        self._lock = threading.Lock()
        self._made: list[Promise] = []

    @property
    def made(self) -> list[Promise]:
        """Those acknowledged so far, in the order of their acknowledgement."""
        with self._lock:
            return list(self._made)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._made)

    def make(self, question: Question, key: str) -> Promise | None:
        """Submit until it is acknowledged; None when that does not happen in time."""
        give_up_s = time.monotonic() + TAKEN_WITHIN_S
        tries = 0
        while time.monotonic() < give_up_s:
            tries += 1
            try:
                job_id = self._flow.submit(question, {"idempotency-key": key})
            except (NoAnswerError, RefusedError):
                time.sleep(AGAIN_EVERY_S)
                continue
            promise = Promise(key, question, job_id, tries)
            with self._lock:
                self._made.append(promise)
            return promise
        return None

    def kept(self, expected: Mapping[str, Sight]) -> Kept:
        """Wait for all of them and compare; ``expected`` is the unbroken answer of each prompt."""
        kept, deadline_s = Kept(), time.monotonic() + DONE_WITHIN_S
        problems: list[str] = []
        for promise in self.made:
            problem = self._problem(promise, expected[promise.question.prompt], kept, deadline_s)
            if problem and len(problems) < PROBLEMS_MAX:
                problems.append(f"{promise.job_id}: {problem}")
        kept.problems = tuple(problems)
        return kept

    def _problem(self, promise: Promise, expected: Sight, kept: Kept, deadline_s: float) -> str:
        status = self._final_status(promise.job_id, deadline_s)
        if status != "done":
            kept.lost += 1
            return f"is {status}"
        tokens = self._flow.tokens(promise.job_id)
        if tokens["last_seq"] > expected.count:
            kept.doubled += 1
            return f"has {tokens['last_seq']} events, not {expected.count}"
        usage = {name: tokens["usage"][name] for name in expected.usage} if tokens["usage"] else {}
        if tokens["text"] != expected.text or usage != expected.usage or tokens["last_seq"] != expected.count:
            kept.unequal += 1
            return f"differs: {tokens['last_seq']} events of {expected.count}, usage {usage}"
        if self._flow.submit(promise.question, {"idempotency-key": promise.key}) != promise.job_id:
            kept.doubled += 1
            return "its key names another task"
        return ""

    def _final_status(self, job_id: str, deadline_s: float) -> str:
        while True:
            try:
                view = self._flow.view(job_id)
            except RefusedError as error:
                return error.code
            if view["status"] in FINAL or time.monotonic() > deadline_s:
                reason = f" ({view['error']['code']})" if view["error"] else ""
                return f"{view['status']}{reason}"
            time.sleep(AGAIN_EVERY_S)
