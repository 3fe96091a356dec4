"""Group commit: one thread owns the writing connection and pays one fsync for many callers.

While a transaction is being committed, new operations gather; all of them go into the next one. So
throughput rises with load and a lone caller waits for no timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

import apsw
from msgspec import Struct
from msgspec.structs import replace

from swarmesh.core.errors import InvalidValueError, StoreError, SwarmeshError
from swarmesh.store.connection import close, failure
from swarmesh.store.errors import StoreClosedError

QUEUE_OPERATIONS: Final = 4_096
"""Operations queued or in work; the next caller waits until one is done."""
BATCH_OPERATIONS: Final = 512
BATCH_BYTES: Final = 16 * 1024 * 1024
"""A batch that holds this much takes no more, so that one transaction stays short."""
CHECKPOINT_PAGES: Final = 1_000
"""Copy the log into the file each time it has grown by this much; more is faster and starts slower."""
WAL_PAGES_MAX: Final = 16_000
"""A log this long is started over even if that means waiting for readers."""

T = TypeVar("T")
Operation = Callable[[apsw.Connection], T]

_log = logging.getLogger(__name__)


class StoreStats(Struct, frozen=True):
    """What the writer has done since it was opened."""

    commits: int = 0
    operations: int = 0
    largest_batch: int = 0
    checkpoints: int = 0
    checkpoint_failures: int = 0


@dataclass(slots=True, eq=False)
class _Pending:
    operation: Operation[Any]
    size_bytes: int
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Writer:
    """Runs operations in the order of their calls, many in one transaction.

    Lives on the event loop that made it; owns the connection and closes it.
    """

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Pending | None] = SimpleQueue()
        self._room = asyncio.Semaphore(QUEUE_OPERATIONS)
        self._closed = False
        self._stopping = False
        self._wal_pages = 0
        self._wal_pages_done = 0
        self.stats = StoreStats()
        connection.set_wal_hook(self._note_wal_pages)
        self._thread = Thread(target=self._run, name="hivecomb-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Operation[T], size_bytes: int = 0) -> T:
        """The operation's result, once it is on disk.

        Args:
            operation: Runs in the writer's thread, maybe twice; must do nothing but SQL.
            size_bytes: About how much it writes.

        Raises:
            StoreError: It could not be made durable and left no trace.
            SwarmeshError: Whatever the operation raised; it left no trace either.
        """
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise StoreClosedError
        pending = _Pending(operation, size_bytes, self._loop.create_future())
        self._queue.put(pending)
        result: T = await pending.future
        return result

    async def close(self) -> None:
        """Finish what is queued, then close the connection."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # Everything below runs in the writer's thread, save _deliver.

    def _run(self) -> None:
        while not self._stopping:
            batch = self._take()
            self._commit_or_fail(batch)
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch)
            except RuntimeError:
                # The loop was closed before the store: what is on disk stays, nobody is left to be told.
                break
            self._checkpoint()
        close(self._connection)

    def _take(self) -> list[_Pending]:
        batch: list[_Pending] = []
        size_bytes = 0
        following = self._queue.get()
        while following is not None:
            batch.append(following)
            size_bytes += following.size_bytes
            if len(batch) >= BATCH_OPERATIONS or size_bytes >= BATCH_BYTES:
                return batch
            try:
                following = self._queue.get_nowait()
            except Empty:
                return batch
        self._stopping = True
        return batch

    def _commit_or_fail(self, batch: list[_Pending]) -> None:
        try:
            if not self._commit_together(batch) and len(batch) > 1:
                # One of them spoilt the transaction, or all were too large for the disk: one by one, then.
                for pending in batch:
                    pending.error = None
                    self._commit_together([pending])
        except Exception as exc:  # noqa: BLE001 - a thread's outer edge: callers must hear of it, not hang
            _log.exception("the hivecomb writer met an error it does not know")
            for pending in batch:
                pending.error = StoreError(f"the hivecomb {self._path} failed: {exc!r}")
            self._roll_back()

    def _commit_together(self, batch: list[_Pending]) -> bool:
        """False when the transaction is gone; an operation that is to blame has its error by then."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as exc:
            self._fail(batch, exc)
            return True
        for pending in batch:
            self._attempt(pending)
            if not self._connection.in_transaction:
                return False
        try:
            self._connection.execute("COMMIT")
        except apsw.Error as exc:
            self._fail(batch, exc)
            self._roll_back()
            return False
        self._count(len(batch))
        return True

    def _attempt(self, pending: _Pending) -> None:
        """Run one operation so that its failure undoes nothing but itself."""
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        try:
            pending.result = pending.operation(connection)
        except apsw.Error as exc:
            pending.error = failure(exc, connection, self._path)
        except SwarmeshError as exc:
            pending.error = exc
        except (TypeError, ValueError, OverflowError) as exc:
            pending.error = InvalidValueError(f"the hivecomb cannot hold this value: {exc}")
        # A full disk makes SQLite undo the whole transaction, and the savepoint is gone with it.
        if pending.error is not None and connection.in_transaction:
            connection.execute("ROLLBACK TO operation")
        if connection.in_transaction:
            connection.execute("RELEASE operation")

    def _fail(self, batch: list[_Pending], exc: apsw.Error) -> None:
        error = failure(exc, self._connection, self._path)
        for pending in batch:
            pending.error = error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _count(self, operations: int) -> None:
        stats = self.stats
        self.stats = replace(
            stats,
            commits=stats.commits + 1,
            operations=stats.operations + operations,
            largest_batch=max(stats.largest_batch, operations),
        )

    def _note_wal_pages(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        if pages < self._wal_pages:
            self._wal_pages_done = 0
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy the log back into the file; after the callers were answered, so none waits for it."""
        if self._wal_pages - self._wal_pages_done < CHECKPOINT_PAGES:
            return
        self._wal_pages_done = self._wal_pages
        is_long = self._wal_pages >= WAL_PAGES_MAX
        mode = apsw.SQLITE_CHECKPOINT_RESTART if is_long else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            self._connection.wal_checkpoint(mode=mode)
            self.stats = replace(self.stats, checkpoints=self.stats.checkpoints + 1)
        except apsw.Error as exc:
            # Nothing is lost, the log still has it all; the next round tries again.
            _log.warning("hivecomb checkpoint at %d pages failed: %s", self._wal_pages, exc)
            self.stats = replace(self.stats, checkpoint_failures=self.stats.checkpoint_failures + 1)

    def _deliver(self, batch: list[_Pending]) -> None:
        for pending in batch:
            self._room.release()
            if pending.future.done():
                continue
            if pending.error is not None:
                pending.future.set_exception(pending.error)
            else:
                pending.future.set_result(pending.result)
