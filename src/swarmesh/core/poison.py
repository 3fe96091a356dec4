"""Requests that crash the engines that run them: who is blamed, and who is kept out.

An engine that crashes takes all its tasks with it, and one of them may be why. When it cannot be told which, all are
*on probation*: each goes on elsewhere, but no two of them at once on one worker until they have produced something. So
the second crash names its culprit, and the innocent lose nothing but a moment.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from swarmesh.core.fleet import Crash, Worker
from swarmesh.core.task import Task

ENGINE_CRASHED: Final = "engine_crashed"
"""Code of a break by an engine that ended by itself; one that somebody killed is not held against a task."""
KILLS_MAX: Final = 2
"""Engines a task may crash before it is given up."""
QUARANTINE_MS: Final = 600_000
"""How long requests that ask the same are refused. Longer protects more; a fixed engine waits for the end of it."""
FINGERPRINTS_MAX: Final = 1_000


class PoisonBooks:
    """How many engines requests of one fingerprint have crashed lately.

    Attributes:
        crashes: How many and when, by fingerprint; only to be read.
    """

    def __init__(self) -> None:
        self.crashes: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def kills_of(self, fingerprint: int, now_ms: int) -> int:
        """Engines that this request is known to have crashed within the last `QUARANTINE_MS`."""
        kills, at_ms = self.crashes.get(fingerprint, (0, 0))
        return kills if fingerprint and now_ms - at_ms <= QUARANTINE_MS else 0

    def blame(self, task: Task, worker: Worker, now_ms: int) -> None:
        """Enter a crash of ``worker`` that broke a stream of ``task``, which is off its books already."""
        crash = worker.crash
        # The engine is the one that ran the task: the worker may have reported the next one already.
        if crash is None or crash.engine_pid != task.engine_pid:
            alone = task.task_id if not worker.running else None
            crash = worker.crash = Crash(task.engine_pid, worker.probation or alone, worker.last_chosen)
        if task.serial > crash.serial:
            return
        if crash.culprit == task.task_id:
            task.kills = max(task.kills, self.kills_of(task.fingerprint, now_ms)) + 1
            self._note(task, now_ms)
        elif crash.culprit is None:
            # It crashed an engine some time after it had been cleared, or another one did: look longer this time.
            task.watched_to_end = task.kills > 0
            task.kills = max(1, task.kills)
        else:
            return
        task.cleared = False

    def _note(self, task: Task, now_ms: int) -> None:
        if not task.fingerprint:
            return
        self.crashes[task.fingerprint] = (task.kills, now_ms)
        self.crashes.move_to_end(task.fingerprint)
        while len(self.crashes) > FINGERPRINTS_MAX:
            self.crashes.popitem(last=False)
