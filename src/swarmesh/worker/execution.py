"""One task on its way through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from swarmesh.core.errors import EngineError, SwarmeshError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent
from swarmesh.engines.engine_exit import EndCode
from swarmesh.engines.errors import ERROR_OF_END, EngineDiedError
from swarmesh.engines.events import render_error, render_event
from swarmesh.net.exchange import Exchange
from swarmesh.worker.errors import CancelledTaskError
from swarmesh.worker.listener import Listener
from swarmesh.worker.meter import Meter
from swarmesh.worker.token_log import TaskRecord

LINGER_MAX_S: Final = 900.0
"""Longest time a task may go on with nobody listening: as long as an agent waits for a queen."""


class Execution:
    """Runs a task into its record. When nobody listens any more it is cancelled, which frees the engine's slot.

    Args:
        linger_s: How long it may go on with nobody listening, for a queen that comes back.
        why: Tells how the engine ended that broke off; asked at most once.
        deserted: Called when the last who listened has left, and it goes on.
        ended: Called once when it is over and its slot is free.
    """

    def __init__(
        self,
        record: TaskRecord,
        meter: Meter,
        linger_s: float,
        why: Callable[[], Awaitable[EndCode]],
        deserted: Callable[[], None],
        ended: Callable[[Execution], None],
    ) -> None:
        self.record = record
        self._meter = meter
        self._linger_s = min(linger_s, LINGER_MAX_S)
        self._why = why
        self._deserted = deserted
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Listener] = []
        self._lingering: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[bytes] | None = None
        self._woken = asyncio.Event()

    def start(self, events: AsyncGenerator[EngineEvent, None]) -> None:
        """Begin."""
        self._meter.busy += 1
        self._task = self._loop.create_task(self._outcome(events))
        self._task.add_done_callback(self._done)

    def attach(self, exchange: Exchange, after: int) -> None:
        """Send the events after a number on an exchange, those to come included."""
        self._stop_lingering()
        listener = Listener(exchange, self.record, after, self._listeners_changed)
        self._listeners.append(listener)
        self._woken.set()
        listener.pump()

    def cancel(self) -> None:
        """End it now."""
        if self._task is not None:
            self._task.cancel()

    async def _outcome(self, events: AsyncGenerator[EngineEvent, None]) -> bytes:
        try:
            return await self._run(events)
        except EngineDiedError as error:
            raise ERROR_OF_END[await self._why()](error.message, hint=error.hint) from error

    async def _run(self, events: AsyncGenerator[EngineEvent, None]) -> bytes:
        # The end mark is sent when the engine is through, so that whoever sees it finds the slot free.
        last_event = b""
        async with aclosing(events):
            async for event in events:
                rendered = render_event(event, self.record.last_seq + 1, self.record.task_id)
                if isinstance(event, Done):
                    last_event = rendered
                    continue
                self.record.append(rendered)
                self._meter.tokens(self._loop.time(), max(1, len(event.token_ids)))
                await self._caught_up()
        return last_event

    def _done(self, task: asyncio.Task[bytes]) -> None:
        error: SwarmeshError | None = None
        if task.cancelled():
            error = CancelledTaskError()
        elif isinstance(raised := task.exception(), SwarmeshError):
            error = raised
        elif raised is not None:
            error = EngineError("the agent could not go on with this task; its log says why")
            self._loop.call_exception_handler({"message": "a task failed", "exception": raised, "task": task})
        self._stop_lingering()
        self._meter.busy -= 1
        if not isinstance(error, TaskRefusedError | CancelledTaskError):
            self._meter.outcome(self._loop.time(), good=error is None)
        last_event = render_error(error, self.record.last_seq + 1) if error is not None else task.result()
        self.record.end(last_event, error)
        self._ended(self)

    async def _caught_up(self) -> None:
        # The fastest reader sets the pace; the record carries the others.
        while self._listeners and all(listener.paused for listener in self._listeners):
            self._woken.clear()
            await self._woken.wait()

    def _listeners_changed(self) -> None:
        self._listeners = [listener for listener in self._listeners if not listener.gone]
        self._woken.set()
        if self._listeners or self.record.ended:
            return
        self._stop_lingering()
        if self._linger_s > 0:
            self._lingering = self._loop.call_later(self._linger_s, self.cancel)
            self._deserted()
        else:
            self.cancel()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
