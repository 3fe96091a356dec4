"""Answers that take long: their steps, their end, and what becomes of the work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from served_api import ServedApi, events_of, serving_api
from swarmesh.core.errors import ConflictError
from swarmesh.queen.api import steps
from swarmesh.queen.api.route import Route
from swarmesh.queen.api.steps import OnStep, StepAnswers, Work
from swarmesh.wire.hosts import HostList, Step, StepState

Until = Callable[..., Awaitable[Any]]


class Job:
    """One piece of work that a test drives: it says what it is given until it is told to end."""

    def __init__(self) -> None:
        self.on_step: OnStep | None = None
        self.begun = asyncio.Event()
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.outcome = ""

    async def __call__(self, on_step: OnStep) -> Any:
        self.on_step = on_step
        self.begun.set()
        try:
            result = await self.end
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        self.outcome = "ended"
        return result

    def say(self, step: str, state: StepState = StepState.DONE, done_bytes: int = 0) -> None:
        assert self.on_step is not None
        self.on_step(Step(step=step, state=state, done_bytes=done_bytes))


class Desk:
    """A route for work that ends with its client, and one for work that does not."""

    def __init__(self) -> None:
        self.answers = StepAnswers()
        self.work: Work = Job()

    def routes(self) -> list[Route]:
        async def short(_request: Request) -> Response:
            return self.answers.answer(self.work, outlives_client=False)

        async def long(_request: Request) -> Response:
            return self.answers.answer(self.work, outlives_client=True)

        return [
            Route(method="POST", path="/short", summary="", handler=short, answer=HostList, steps=True),
            Route(method="POST", path="/long", summary="", handler=long, answer=None, steps=True),
        ]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.answers.close()


@pytest.fixture
async def api(desk: Desk) -> AsyncIterator[ServedApi]:
    async with serving_api(desk.routes()) as served:
        yield served


def saying(*names: str, then: Any = None) -> Work:
    """Work that says some steps at once and then returns, or raises."""

    async def work(on_step: OnStep) -> Any:
        for name in names:
            on_step(Step(step=name, state=StepState.DONE))
        if isinstance(then, Exception):
            raise then
        return then

    return work


async def test_steps_come_in_order_and_the_result_last(desk: Desk, api: ServedApi) -> None:
    desk.work = saying("connect", "install", then=HostList([]))
    status, events = await api.ask("POST", "/short")
    assert status == 200
    assert [(name, data.get("step")) for name, data in events] == [
        ("step", "connect"),
        ("step", "install"),
        ("done", None),
    ]
    assert events[-1][1] == {"hosts": []}


async def test_nothing_to_tell_is_an_empty_object(desk: Desk, api: ServedApi) -> None:
    desk.work = saying()
    assert await api.ask("POST", "/long") == (200, [("done", {})])


async def test_an_error_before_the_first_step_has_its_status(desk: Desk, api: ServedApi) -> None:
    desk.work = saying(then=ConflictError("it is there", hint="leave it"))
    status, answer = await api.ask("POST", "/short")
    assert status == 409
    assert (answer["error"]["code"], answer["error"]["hint"]) == ("conflict", "leave it")
    assert api.errors == []


async def test_an_error_after_a_step_ends_the_stream(desk: Desk, api: ServedApi) -> None:
    desk.work = saying("connect", then=ConflictError("it is there"))
    status, events = await api.ask("POST", "/short")
    assert status == 200
    assert [name for name, _ in events] == ["step", "error"]
    assert events[1][1]["error"]["code"] == "conflict"


async def test_what_nobody_expected_is_an_internal_error(desk: Desk, api: ServedApi) -> None:
    desk.work = saying("connect", then=ZeroDivisionError("secret path"))
    _, events = await api.ask("POST", "/short")
    assert events[1][1]["error"]["code"] == "internal_error"
    assert "secret" not in str(events)
    desk.work = saying(then=ZeroDivisionError("secret path"))
    status, answer = await api.ask("POST", "/short")
    assert (status, answer["error"]["code"]) == (500, "internal_error")


async def test_a_step_is_sent_when_it_happens(desk: Desk, api: ServedApi) -> None:
    job = desk.work = Job()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(api.ask("POST", "/short"))
        await job.begun.wait()
        job.say("connect")
        job.end.set_result(None)
    assert [name for name, _ in asked.result()[1]] == ["step", "done"]


async def test_long_silence_brings_pings_and_the_stream_begins_without_a_step(
    desk: Desk, api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "FIRST_STEP_WAIT_S", 0.0)
    monkeypatch.setattr(steps, "PING_INTERVAL_S", 0.0)
    job = desk.work = Job()
    async with api.http.stream("POST", "/short") as response:
        said = b""
        async for data in response.chunks():
            said += data
            if said.count(b": ping\n") > 2 and not job.end.done():
                job.end.set_exception(ConflictError("no"))
    assert response.status == 200
    assert [name for name, _ in events_of(said)] == ["error"]


async def test_of_bytes_only_the_newest_count_is_kept() -> None:
    course = steps._Course()
    for count in range(1000):
        course.take(Step(step="copy", state=StepState.RUNNING, done_bytes=count))
    course.take(Step(step="copy", state=StepState.DONE, done_bytes=1000))
    course.take(Step(step="check", state=StepState.RUNNING))
    kept = events_of(course.rendered())
    assert [(data["step"], data["state"], data["done_bytes"]) for _, data in kept] == [
        ("copy", "done", 1000),
        ("check", "running", 0),
    ]
    assert course.rendered() == b""


async def test_what_waits_for_a_client_is_bounded() -> None:
    course = steps._Course()
    for count in range(2 * steps.PENDING_MAX):
        course.take(Step(step=f"step {count}", state=StepState.DONE))
    kept = events_of(course.rendered())
    assert len(kept) == steps.PENDING_MAX
    assert kept[-1][1]["step"] == f"step {2 * steps.PENDING_MAX - 1}"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_takes_short_work_along(
    desk: Desk, api: ServedApi, until: Until, *, begun: bool
) -> None:
    job = desk.work = Job()
    await ask_and_leave(api, "/short", job, begun=begun)
    await until(lambda: job.outcome)
    assert job.outcome == "cancelled"
    assert api.errors == []


@pytest.mark.parametrize("begun", [False, True])
async def test_what_must_not_be_left_half_done_outlives_its_client(
    desk: Desk, api: ServedApi, until: Until, *, begun: bool
) -> None:
    job = desk.work = Job()
    await ask_and_leave(api, "/long", job, begun=begun)
    job.say("install")
    job.end.set_result(None)
    await until(lambda: job.outcome)
    assert job.outcome == "ended"


async def ask_and_leave(api: ServedApi, path: str, job: Job, *, begun: bool) -> None:
    asking = asyncio.get_running_loop().create_task(one_event(api, path))
    await job.begun.wait()
    if begun:
        job.say("connect")
        await asking
    else:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def one_event(api: ServedApi, path: str) -> None:
    async with api.http.stream("POST", path) as response:
        async for _ in response.chunks():
            return


async def test_a_queen_that_closes_ends_what_runs(desk: Desk, api: ServedApi) -> None:
    job = desk.work = Job()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(api.ask("POST", "/long"))
        await job.begun.wait()
        await desk.answers.close()
    assert job.outcome == "cancelled"
    status, answer = asked.result()
    assert (status, answer["error"]["code"]) == (503, "work_cut")
