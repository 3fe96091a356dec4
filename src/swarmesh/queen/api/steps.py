"""An answer to something long: its steps as server-sent events while it goes on, then its result or its error."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from swarmesh.core.errors import InternalError, SwarmeshError
from swarmesh.wire.errors import envelope
from swarmesh.wire.hosts import Step, StepState
from swarmesh.wire.sse import PING, SseEvent, render

PING_INTERVAL_S: Final = 2.0
FIRST_STEP_WAIT_S: Final = 10.0
"""Until then an error has an HTTP status of its own; after that the stream begins, so that nobody takes it for dead."""
GATHER_S: Final = 0.05
"""Steps that follow one another faster are sent together, of bytes only the newest count."""
PENDING_MAX: Final = 256
"""Steps kept for a client that does not read; the oldest make room."""

OnStep = Callable[[Step], None]
"""Told of each step; returns at once and never raises."""
Work = Callable[[OnStep], Coroutine[Any, Any, Any]]
"""Something long; what it returns has to be JSON for msgspec, None for nothing to tell."""

log = structlog.get_logger("api")


class WorkCutError(SwarmeshError):
    """The queennode stopped before this was done."""

    code = "work_cut"
    status = 503
    default_hint = "Send it again when she is back; what was done already is not done twice."


class StepAnswers:
    """Runs long work for requests and owns its tasks, also of those whose client has left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def answer(self, work: Work, *, outlives_client: bool) -> Response:
        """An answer that does the work when it is sent.

        An error before the first step is raised, so that it gets its HTTP status. With ``outlives_client`` the work
        goes on when the client leaves, which is for what must not be left half done; else it is cancelled then.
        """
        return _StepsResponse(self, work, outlives_client=outlives_client)

    async def close(self) -> None:
        """Cancel whatever still runs, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work in a task that is kept until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SwarmeshError):
            log.info("work_failed", code=error.code, error=error.message)
        elif error is not None:
            log.error("work_failed", exc_info=error)


class _StepsResponse(Response):
    """See `StepAnswers.answer`."""

    media_type = "text/event-stream"

    def __init__(self, answers: StepAnswers, work: Work, *, outlives_client: bool) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        # It has no length that is known before its end.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._answers = answers
        self._work = work
        self._outlives_client = outlives_client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        course = _Course()
        work = self._answers.start(self._work(course.take))
        client = asyncio.get_running_loop().create_task(_client_left(receive))
        for task in (work, client):
            task.add_done_callback(course.end)
        try:
            await course.wait_news(FIRST_STEP_WAIT_S)
            if work.done() and not course.pending and (error := _error_of(work)) is not None:
                raise error
            await self._stream(course, work, client, send)
        finally:
            client.cancel()
            if not self._outlives_client:
                work.cancel()

    async def _stream(self, course: _Course, work: asyncio.Task[Any], client: asyncio.Task[None], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while not client.done():
            steps = course.rendered()
            if work.done():
                await send({"type": "http.response.body", "body": steps + _last_event(work), "more_body": False})
                return
            await send({"type": "http.response.body", "body": steps or PING, "more_body": True})
            await course.wait_news(PING_INTERVAL_S)
            await course.wait_end(GATHER_S)


class _Course:
    """Steps that were taken and not sent yet."""

    def __init__(self) -> None:
        self.pending: deque[Step] = deque(maxlen=PENDING_MAX)
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    def take(self, step: Step) -> None:
        before = self.pending[-1] if self.pending else None
        if before is not None and before.step == step.step and before.state is StepState.RUNNING:
            self.pending.pop()
        self.pending.append(step)
        self._news.set()

    def end(self, _task: asyncio.Task[Any]) -> None:
        """The work is over, or the client has left."""
        self._ended.set()
        self._news.set()

    def rendered(self) -> bytes:
        """All pending steps as events; they are not pending any more."""
        steps = b"".join(render(SseEvent(msgspec.json.encode(step), "step")) for step in self.pending)
        self.pending.clear()
        if not self._ended.is_set():
            self._news.clear()
        return steps

    async def wait_news(self, within_s: float) -> None:
        await _wait(self._news, within_s)

    async def wait_end(self, within_s: float) -> None:
        if self.pending:
            await _wait(self._ended, within_s)


async def _wait(event: asyncio.Event, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _error_of(work: asyncio.Task[Any]) -> BaseException | None:
    return WorkCutError() if work.cancelled() else work.exception()


def _last_event(work: asyncio.Task[Any]) -> bytes:
    match _error_of(work):
        case None:
            result = work.result()
            return render(SseEvent(b"{}" if result is None else msgspec.json.encode(result), "done"))
        case SwarmeshError() as error:
            return render(SseEvent(envelope(error), "error"))
        case _:
            return render(SseEvent(envelope(InternalError()), "error"))
