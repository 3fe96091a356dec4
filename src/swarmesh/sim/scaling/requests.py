"""What became of every request of a run, as its client sees it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from swarmesh.core.ids import TaskId
from swarmesh.sim.scaling.plan import Ask


@dataclass(slots=True, eq=False)
class Request:
    """One request.

    Attributes:
        wait_ms: From its coming until a worker was given it for the first time; -1 before that.
        first: It came when its model had no worker at all.
    """

    task_id: TaskId
    ask: Ask
    came_ms: int
    wait_ms: int = -1
    first: bool = False


class Requests:
    """All of them.

    Attributes:
        open: Those without an end.
        waits_ms: Of those that were started.
        codes: Of those that failed.
    """

    def __init__(self) -> None:
        self.open: dict[TaskId, Request] = {}
        self.waits_ms: list[int] = []
        self.codes: Counter[str] = Counter()
        self.count = 0

    def come(self, ask: Ask, now_ms: int) -> Request:
        """Somebody asks."""
        self.count += 1
        request = Request(TaskId(f"task-{self.count}"), ask, now_ms)
        self.open[request.task_id] = request
        return request

    def started(self, task_id: TaskId, now_ms: int) -> Request:
        """A worker was given it."""
        request = self.open[task_id]
        if request.wait_ms < 0:
            request.wait_ms = now_ms - request.came_ms
            self.waits_ms.append(request.wait_ms)
        return request

    def answered(self, task_id: TaskId) -> None:
        """It has its answer."""
        del self.open[task_id]

    def failed(self, task_id: TaskId, code: str) -> None:
        """It has none."""
        del self.open[task_id]
        self.codes[code] += 1
