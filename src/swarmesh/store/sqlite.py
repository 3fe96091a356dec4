"""The hivecomb in one SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

import apsw

from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId, WorkerId
from swarmesh.store import statements
from swarmesh.store.connection import close, create_private, failure, open_writer
from swarmesh.store.lock import FileLock
from swarmesh.store.readers import Readers
from swarmesh.store.records import (
    AlarmRecord,
    DecisionRecord,
    HostRecord,
    KeyRecord,
    LaunchRecord,
    LoadTimeRecord,
    ScaleRecord,
    TaskPatch,
    TaskRecord,
    TokenRow,
    WorkerRecord,
)
from swarmesh.store.soundness import check_sound
from swarmesh.store.store import READ_LIMIT, check_limit
from swarmesh.store.writer import StoreStats, Writer

PRUNE_TASKS: Final = 200
"""Tasks that one transaction of ``prune`` deletes, so that others get their turn between."""


class SqliteStore:
    """A ``Store`` that survives ``kill -9`` and power loss; see ``docs/hivecomb-architecture.md``.

    Belongs to the event loop that opened it. Every method may be called by any task of that loop at any
    time; none blocks the loop.
    """

    def __init__(self, writer: Writer, readers: Readers, lock: FileLock) -> None:
        self._writer = writer
        self._readers = readers
        self._lock = lock
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, max_bytes: int | None = None, boot_id: str = "", vfs: str | None = None) -> Self:
        """Open the file, made anew where there is none; its directory must exist.

        Args:
            path: The file; ``PATH.lock``, ``PATH-wal`` and ``PATH-shm`` appear beside it, all mode 0600.
            max_bytes: What would make the file larger raises StoreFullError.
            boot_id: Names the machine's present boot. The first opening in each boot reads the whole file for
                damage; without it every opening does.
            vfs: Name of a registered APSW VFS, for tests that inject faults.

        Raises:
            HivecombLockedError: Another process, or another store in this one, has it open.
            StoreError: The file is damaged, not a hivecomb, or from a newer Swarmesh.
        """
        connection, readers, lock = await asyncio.to_thread(_open, path, max_bytes, boot_id, vfs)
        return cls(Writer(connection, path), readers, lock)

    @property
    def stats(self) -> StoreStats:
        """How many writes shared how many commits since the store was opened."""
        return self._writer.stats

    async def insert_task(self, record: TaskRecord) -> TaskRecord:
        """See ``Store``."""
        return await self._writer.run(partial(statements.insert_task, record=record), size_bytes=len(record.request))

    async def update_task(self, task_id: TaskId, patch: TaskPatch) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.update_task, task_id=task_id, patch=patch))

    async def append_tokens(self, task_id: TaskId, rows: Sequence[TokenRow]) -> None:
        """See ``Store``; one call with many rows costs far less than many calls."""
        rows = tuple(rows)
        size_bytes = sum(row.size_bytes for row in rows)
        await self._writer.run(partial(statements.append_tokens, task_id=task_id, rows=rows), size_bytes)

    async def finish_task(self, task_id: TaskId, rows: Sequence[TokenRow], patch: TaskPatch) -> None:
        """See ``Store``."""
        rows = tuple(rows)
        operation = partial(statements.finish_task, task_id=task_id, rows=rows, patch=patch)
        await self._writer.run(operation, sum(row.size_bytes for row in rows))

    async def task(self, task_id: TaskId) -> TaskRecord | None:
        """See ``Store``."""
        return await self._readers.run(partial(statements.select_task, task_id=task_id))

    async def task_by_idempotency_key(self, key_id: KeyId, idempotency_key: str) -> TaskRecord | None:
        """See ``Store``."""
        query = partial(statements.select_task_by_idempotency_key, key_id=key_id, idempotency_key=idempotency_key)
        return await self._readers.run(query)

    async def tasks(
        self,
        *,
        statuses: Sequence[str] = (),
        limit: int = 100,
        before_ms: int | None = None,
        key_id: KeyId | None = None,
    ) -> list[TaskRecord]:
        """See ``Store``."""
        check_limit(limit)
        return await self._readers.run(
            partial(statements.select_tasks, statuses=tuple(statuses), limit=limit, before_ms=before_ms, key_id=key_id)
        )

    async def unfinished_tasks(self) -> list[TaskRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_unfinished_tasks)

    async def tokens(self, task_id: TaskId, *, after_seq: int = 0, limit: int = READ_LIMIT) -> list[TokenRow]:
        """See ``Store``."""
        check_limit(limit)
        return await self._readers.run(
            partial(statements.select_tokens, task_id=task_id, after_seq=after_seq, limit=limit)
        )

    async def put_worker(self, record: WorkerRecord) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.put_worker, record=record))

    async def delete_worker(self, worker_id: WorkerId) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.delete_worker, worker_id=worker_id))

    async def workers(self) -> list[WorkerRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_workers)

    async def put_host(self, record: HostRecord) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.put_host, record=record))

    async def delete_host(self, name: HostName) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.delete_host, name=name))

    async def hosts(self) -> list[HostRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_hosts)

    async def put_key(self, record: KeyRecord) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.put_key, record=record))

    async def delete_key(self, key_id: KeyId) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.delete_key, key_id=key_id))

    async def keys(self) -> list[KeyRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_keys)

    async def put_scale(self, record: ScaleRecord) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.put_scale, record=record))

    async def delete_scale(self, model: ModelName) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.delete_scale, model=model))

    async def scales(self) -> list[ScaleRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_scales)

    async def put_load_time(self, record: LoadTimeRecord) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.put_load_time, record=record))

    async def load_times(self) -> list[LoadTimeRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_load_times)

    async def put_launch(self, record: LaunchRecord) -> None:
        """See ``Store``."""
        await self._writer.run(partial(statements.put_launch, record=record))

    async def launches(self) -> list[LaunchRecord]:
        """See ``Store``."""
        return await self._readers.run(statements.select_launches)

    async def append_alarm(self, record: AlarmRecord) -> AlarmRecord:
        """See ``Store``."""
        return await self._writer.run(partial(statements.append_alarm, record=record))

    async def alarms(self, limit: int = 100) -> list[AlarmRecord]:
        """See ``Store``."""
        check_limit(limit)
        return await self._readers.run(partial(statements.select_alarms, limit=limit))

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """See ``Store``."""
        records = tuple(records)
        size_bytes = sum(len(record.facts) for record in records)
        await self._writer.run(partial(statements.append_decisions, records=records), size_bytes)

    async def decisions(self, since_ms: int, *, after_id: int = 0, limit: int = READ_LIMIT) -> list[DecisionRecord]:
        """See ``Store``."""
        check_limit(limit)
        query = partial(statements.select_decisions, since_ms=since_ms, after_id=after_id, limit=limit)
        return await self._readers.run(query)

    async def next_epoch(self, *, above: int = 0) -> int:
        """See ``Store``."""
        return await self._writer.run(partial(statements.next_epoch, above=above))

    async def prune(self, before_ms: int) -> int:
        """See ``Store``; the room is used again for new tasks, the file does not shrink."""
        operation = partial(statements.prune, before_ms=before_ms, limit=PRUNE_TASKS)
        pruned = 0
        while deleted := await self._writer.run(operation):
            pruned += deleted
        return pruned

    async def close(self) -> None:
        """See ``Store``."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # The writer goes last: SQLite folds the log into the file when its last connection closes.
        await self._readers.close()
        await self._writer.close()
        self._lock.release()


def _open(
    path: Path, max_bytes: int | None, boot_id: str, vfs: str | None
) -> tuple[apsw.Connection, Readers, FileLock]:
    # Two links to one file must meet at one lock.
    path = path.resolve()
    lock = FileLock.acquire(path.with_name(path.name + ".lock"))
    try:
        create_private(path)
        connection = open_writer(path, vfs=vfs, max_bytes=max_bytes)
        try:
            check_sound(connection, path, boot_id)
            return connection, _open_readers(path, vfs), lock
        except BaseException:
            close(connection)
            raise
    except BaseException:
        lock.release()
        raise


def _open_readers(path: Path, vfs: str | None) -> Readers:
    try:
        return Readers.open(path, vfs=vfs)
    except apsw.Error as exc:
        raise failure(exc, None, path) from exc
