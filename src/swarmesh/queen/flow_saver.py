"""Brings what happens to durable tasks to disk: in order, in batches, and again until it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from swarmesh.core.errors import NotFoundError, SwarmeshError
from swarmesh.core.ids import TaskId
from swarmesh.store.records import TaskPatch, TokenRow
from swarmesh.store.store import Store

FLUSH_S: Final = 0.2
"""Longest time a produced token waits for its place on disk; a client never waits for it."""
RETRY_S: Final = 1.0
"""Between two tries while the hivecomb takes nothing, as when its disk is full."""

log = structlog.get_logger("flow_saver")


class _Unsaved:
    """What of one task is not on disk yet."""

    __slots__ = ("patch", "rows", "saved", "task_id", "writing")

    def __init__(self, task_id: TaskId) -> None:
        self.task_id = task_id
        self.rows: list[TokenRow] = []
        self.patch: TaskPatch | None = None
        self.writing = False
        self.saved: list[Callable[[], None]] = []

    def has_work(self) -> bool:
        """Whether there is something to write, or somebody to be called."""
        return bool(self.rows or self.patch is not None or self.saved)


class FlowSaver:
    """One write per task is under way at a time, so that nothing is overtaken; what fails waits and is tried again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._unsaved: dict[TaskId, _Unsaved] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False
        self._closed = False

    def add_row(self, task_id: TaskId, row: TokenRow) -> None:
        """A token; it is written within `FLUSH_S`."""
        self._of(task_id).rows.append(row)
        self._wake(FLUSH_S)

    def patch(self, task_id: TaskId, patch: TaskPatch) -> None:
        """A change of state, written at once together with the tokens before it."""
        unsaved = self._of(task_id)
        unsaved.patch = patch if unsaved.patch is None else _merged(unsaved.patch, patch)
        self._write(unsaved)

    def when_saved(self, task_id: TaskId, then: Callable[[], None]) -> None:
        """Call back once what is known of a task is on disk, or could not be written.

        The second matters as much: a full disk keeps new tasks out, not those that were taken in.
        """
        unsaved = self._of(task_id)
        unsaved.saved.append(then)
        self._write(unsaved)

    async def saved(self, task_id: TaskId) -> None:
        """Wait for the same."""
        done: asyncio.Future[None] = self._loop.create_future()
        self.when_saved(task_id, lambda: None if done.done() else done.set_result(None))
        await done

    def has(self, task_id: TaskId) -> bool:
        """Whether anything of this task is not on disk, also what is on its way there."""
        return task_id in self._unsaved

    async def settle(self) -> None:
        """Wait until everything is on disk, or could not be written."""
        self._flush()
        while self._writes:
            await asyncio.gather(*self._writes, return_exceptions=True)

    async def close(self) -> None:
        """Write what is there, once."""
        await self.settle()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _of(self, task_id: TaskId) -> _Unsaved:
        unsaved = self._unsaved.get(task_id)
        if unsaved is None:
            unsaved = self._unsaved[task_id] = _Unsaved(task_id)
        return unsaved

    def _wake(self, delay_s: float) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(delay_s, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for unsaved in list(self._unsaved.values()):
            self._write(unsaved)

    def _write(self, unsaved: _Unsaved) -> None:
        if unsaved.writing:
            return  # What came since is written right after.
        unsaved.writing = True
        task = self._loop.create_task(self._save(unsaved))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _save(self, unsaved: _Unsaved) -> None:
        goes_on = True
        while goes_on and unsaved.has_work():
            saved, unsaved.saved = unsaved.saved, []
            goes_on = await self._put(unsaved)
            if not unsaved.has_work():
                del self._unsaved[unsaved.task_id]  # Before anybody is called: from here on `has` says no.
            for call in saved:
                call()

    async def _put(self, unsaved: _Unsaved) -> bool:
        rows, unsaved.rows = unsaved.rows, []
        patch, unsaved.patch = unsaved.patch, None
        try:
            if patch is not None:
                await self._store.finish_task(unsaved.task_id, rows, patch)
            elif rows:
                await self._store.append_tokens(unsaved.task_id, rows)
        except NotFoundError as error:
            log.warning("unsaved_task_unknown", job_id=unsaved.task_id, error=error.message)
        except SwarmeshError as error:
            self._put_back(unsaved, rows, patch, error)
            return False
        else:
            self._recovered()
        return True

    def _put_back(self, unsaved: _Unsaved, rows: list[TokenRow], patch: TaskPatch | None, error: SwarmeshError) -> None:
        unsaved.rows = rows + unsaved.rows
        if patch is not None:
            unsaved.patch = patch if unsaved.patch is None else _merged(patch, unsaved.patch)
        unsaved.writing = False
        if not self._failing:
            self._failing = True
            log.error("hivecomb_write_failed", error=error.message, hint="It is tried again until it succeeds.")
        self._wake(RETRY_S)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log.info("hivecomb_writes_again")


def _merged(earlier: TaskPatch, later: TaskPatch) -> TaskPatch:
    changes = {**earlier.changes(), **later.changes()}
    return msgspec.convert(changes, TaskPatch)
