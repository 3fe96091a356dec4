"""Commands are carried out one by one; one that goes wrong stops nobody else's."""

from __future__ import annotations

import pytest

from swarmesh.core.commands import BreakStream, StartStream
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.events import TaskSubmitted, WorkerRegistered
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.queen.driver import Driver
from swarmesh.queen.links import Dialect, Links, WorkerLink

WORKER = WorkerId("worker")


class Clumsy:
    """A runner that cannot start."""

    def __init__(self, submitted: TaskSubmitted) -> None:
        self.submitted = submitted
        self.error: SwarmeshError | None = None

    def start(self, command: StartStream, link: WorkerLink) -> None:
        raise ZeroDivisionError

    def stop(self) -> None:
        raise ZeroDivisionError

    def preempt(self) -> None:
        raise ZeroDivisionError

    def break_off(self, command: BreakStream) -> None:
        raise ZeroDivisionError

    def fail(self, error: SwarmeshError) -> None:
        self.error = error


@pytest.fixture
async def driver() -> Driver:
    made = Driver(Swarm(), Links())
    made.links.put(WorkerLink(WORKER, "http://127.0.0.1:9", dialect=Dialect.OPENAI))
    made.post(WorkerRegistered(WORKER, ModelName("m"), "cpu", HostName("h"), "http://127.0.0.1:9", 1, ready=True))
    return made


async def test_a_task_that_cannot_be_started_ends_in_an_error_and_frees_its_slot(driver: Driver) -> None:
    for number in range(2):
        task_id = TaskId(f"task-{number}")
        runner = Clumsy(TaskSubmitted(task_id, ModelName("m"), Priority.MEDIUM, KeyId("k"), 1, 1))
        driver.run(runner)
        assert runner.error is not None
        assert runner.error.code == "internal_error"
        refused = driver.refused.find(task_id)
        assert refused is not None
        assert (refused.code, refused.submitted) == ("internal_error", runner.submitted)
        assert not driver.swarm.dispatcher.tasks


class Started(Clumsy):
    """A runner that starts."""

    attempts = 0

    def start(self, command: StartStream, link: WorkerLink) -> None:
        self.attempts = command.attempt


async def test_a_decision_that_cannot_be_kept_keeps_no_task_from_starting(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver.book, "started", lambda *_: 1 // 0)
    runner = Started(TaskSubmitted(TaskId("t"), ModelName("m"), Priority.MEDIUM, KeyId("k"), 1, 1))
    driver.run(runner)
    assert (runner.attempts, runner.error) == (1, None)


async def test_a_decision_is_kept_with_the_key_that_asked(driver: Driver) -> None:
    driver.run(Started(TaskSubmitted(TaskId("t"), ModelName("m"), Priority.MEDIUM, KeyId("k"), 1, 1)))
    assert [attempt.key_id for attempt in driver.book.find("t")] == ["k"]
