"""Work that several callers wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from swarmesh.models.shared_work import SharedWork


class Job:
    """Work that goes on when it is let go."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.tell: Callable[[int], None] = lambda _: None

    async def run(self, tell: Callable[[int], None]) -> str:
        self.started += 1
        self.tell = tell
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0)
            raise
        finally:
            self.ended += 1
        return f"run {self.started}"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_two_callers_share_one_run_and_its_progress() -> None:
    work: SharedWork[int, str] = SharedWork()
    job, heard = Job(), ([], [])
    first = asyncio.create_task(work.join("k", job.run, heard[0].append))
    await settle()
    job.tell(1)
    second = asyncio.create_task(work.join("k", job.run, heard[1].append))
    await settle()
    job.tell(2)
    job.go.set()
    assert await asyncio.gather(first, second) == ["run 1", "run 1"]
    assert heard == ([1, 2], [1, 2])


async def test_other_keys_are_other_work_and_so_is_the_next_time() -> None:
    work: SharedWork[int, str] = SharedWork()
    job = Job()
    job.go.set()
    assert await asyncio.gather(work.join("a", job.run), work.join("b", job.run)) == ["run 1", "run 2"]
    assert await work.join("a", job.run) == "run 3"


async def test_a_caller_that_leaves_does_not_take_the_work_along() -> None:
    work: SharedWork[int, str] = SharedWork()
    job = Job()
    first = asyncio.create_task(work.join("k", job.run))
    second = asyncio.create_task(work.join("k", job.run))
    await settle()
    first.cancel()
    await settle()
    assert job.cancelled == 0
    job.go.set()
    assert await second == "run 1"


async def test_the_last_caller_to_leave_ends_the_work_and_waits_for_its_end() -> None:
    work: SharedWork[int, str] = SharedWork()
    job = Job()
    callers = [asyncio.create_task(work.join("k", job.run)) for _ in range(2)]
    await settle()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert (job.cancelled, job.ended) == (1, 1)


async def test_who_comes_while_it_is_being_ended_starts_it_anew_afterwards() -> None:
    work: SharedWork[int, str] = SharedWork()
    job = Job()
    first = asyncio.create_task(work.join("k", job.run))
    await settle()
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.create_task(work.join("k", job.run))
    await settle()
    assert (job.started, job.ended) == (2, 1)
    job.go.set()
    assert await second == "run 2"


async def test_every_caller_gets_the_error() -> None:
    work: SharedWork[int, str] = SharedWork()

    async def fail(_tell: Callable[[int], None]) -> str:
        raise ValueError("no")

    outcomes = await asyncio.gather(*(work.join("k", fail) for _ in range(2)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no", "no"]
    with pytest.raises(ValueError, match="no"):
        await work.join("k", fail)
