"""What the hivecomb says to SQLite: one function per operation, each run inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import apsw
import msgspec
from msgspec.structs import astuple, replace

from swarmesh.core.errors import ConflictError, NotFoundError
from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId, WorkerId
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
from swarmesh.store.schema import queries
from swarmesh.store.store import ALARMS_KEPT, DECISIONS_KEPT, DECISIONS_KEPT_MS, LOAD_TIMES_KEPT, READ_BYTES

_SQL: Final = queries()
_TOKEN_IDS: Final = msgspec.json.Decoder(tuple[int, ...])


def insert_task(connection: apsw.Connection, record: TaskRecord) -> TaskRecord:
    """The record itself, or the earlier one with its idempotency key."""
    connection.execute(_SQL["insert_task"], astuple(record))
    if connection.changes():
        return record
    if record.idempotency_key is not None:
        earlier = select_task_by_idempotency_key(connection, record.key_id, record.idempotency_key)
        if earlier is not None:
            return earlier
    raise ConflictError(f"task {record.task_id} exists already")


def update_task(connection: apsw.Connection, task_id: TaskId, patch: TaskPatch) -> None:
    """Set the patch's fields."""
    changes = patch.changes()
    if not changes:
        _submission(connection, task_id)
        return
    assignments = ", ".join(f"{name} = ?" for name in changes)
    sql = f"UPDATE tasks SET {assignments} WHERE task_id = ?"  # noqa: S608 - the names are TaskPatch's own fields
    connection.execute(sql, (*changes.values(), task_id))
    if not connection.changes():
        raise NotFoundError(f"no task {task_id}")


def append_tokens(connection: apsw.Connection, task_id: TaskId, rows: Sequence[TokenRow]) -> None:
    """Add the rows that are not there yet."""
    submission = _submission(connection, task_id)
    connection.executemany(
        _SQL["insert_token"],
        [(submission, row.seq, row.text, _encode_ids(row.token_ids), row.data, row.media_type) for row in rows],
    )


def finish_task(connection: apsw.Connection, task_id: TaskId, rows: Sequence[TokenRow], patch: TaskPatch) -> None:
    """Add the rows and set the fields."""
    append_tokens(connection, task_id, rows)
    update_task(connection, task_id, patch)


def select_task(connection: apsw.Connection, task_id: TaskId) -> TaskRecord | None:
    """One task."""
    rows = _rows(connection, _SQL["task"], (task_id,))
    return TaskRecord(*rows[0]) if rows else None


def select_task_by_idempotency_key(
    connection: apsw.Connection, key_id: KeyId, idempotency_key: str
) -> TaskRecord | None:
    """The one that was submitted with it."""
    rows = _rows(connection, _SQL["task_by_idempotency_key"], (key_id, idempotency_key))
    return TaskRecord(*rows[0]) if rows else None


def select_tasks(
    connection: apsw.Connection, statuses: Sequence[str], limit: int, before_ms: int | None, key_id: KeyId | None
) -> list[TaskRecord]:
    """Newest first."""
    wanted = msgspec.json.encode(statuses).decode()
    bindings = {"statuses": wanted, "limit": limit, "before_ms": before_ms, "key_id": key_id}
    return [TaskRecord(*row) for row in _rows(connection, _SQL["tasks"], bindings)]


def select_unfinished_tasks(connection: apsw.Connection) -> list[TaskRecord]:
    """In the order of submission."""
    return [TaskRecord(*row) for row in _rows(connection, _SQL["unfinished_tasks"])]


def select_tokens(connection: apsw.Connection, task_id: TaskId, after_seq: int, limit: int) -> list[TokenRow]:
    """By rising seq."""
    found: list[TokenRow] = []
    size_bytes = 0
    with closing(connection.execute(_SQL["tokens"], (task_id, after_seq, limit))) as rows:
        for row in rows:
            found.append(_token_row(*row))
            size_bytes += found[-1].size_bytes
            if size_bytes >= READ_BYTES:
                break
    return found


def put_worker(connection: apsw.Connection, record: WorkerRecord) -> None:
    """Insert or replace."""
    connection.execute(_SQL["put_worker"], astuple(record))


def delete_worker(connection: apsw.Connection, worker_id: WorkerId) -> None:
    """Delete if there."""
    connection.execute(_SQL["delete_worker"], (worker_id,))


def select_workers(connection: apsw.Connection) -> list[WorkerRecord]:
    """By id."""
    records = [WorkerRecord(*row) for row in _rows(connection, _SQL["workers"])]
    # SQLite has no booleans.
    return [replace(record, direct=bool(record.direct)) for record in records]


def put_host(connection: apsw.Connection, record: HostRecord) -> None:
    """Insert or replace."""
    connection.execute(_SQL["put_host"], astuple(record))


def delete_host(connection: apsw.Connection, name: HostName) -> None:
    """Delete if there."""
    connection.execute(_SQL["delete_host"], (name,))


def select_hosts(connection: apsw.Connection) -> list[HostRecord]:
    """By name."""
    records = [HostRecord(*row) for row in _rows(connection, _SQL["hosts"])]
    # SQLite has no booleans.
    return [replace(record, draining=bool(record.draining)) for record in records]


def put_key(connection: apsw.Connection, record: KeyRecord) -> None:
    """Insert or replace."""
    connection.execute(_SQL["put_key"], astuple(record))


def delete_key(connection: apsw.Connection, key_id: KeyId) -> None:
    """Delete if there."""
    connection.execute(_SQL["delete_key"], (key_id,))


def select_keys(connection: apsw.Connection) -> list[KeyRecord]:
    """By id."""
    return [KeyRecord(*row) for row in _rows(connection, _SQL["keys"])]


def put_scale(connection: apsw.Connection, record: ScaleRecord) -> None:
    """Insert or replace."""
    connection.execute(_SQL["put_scale"], astuple(record))


def delete_scale(connection: apsw.Connection, model: ModelName) -> None:
    """Delete if there."""
    connection.execute(_SQL["delete_scale"], (model,))


def select_scales(connection: apsw.Connection) -> list[ScaleRecord]:
    """By model."""
    records = [ScaleRecord(*row) for row in _rows(connection, _SQL["scales"])]
    # SQLite has no booleans.
    return [replace(record, paused=bool(record.paused)) for record in records]


def put_load_time(connection: apsw.Connection, record: LoadTimeRecord) -> None:
    """Insert or replace, and let the oldest go."""
    connection.execute(_SQL["put_load_time"], astuple(record))
    connection.execute(_SQL["drop_old_load_times"], (LOAD_TIMES_KEPT,))


def select_load_times(connection: apsw.Connection) -> list[LoadTimeRecord]:
    """By model and host."""
    return [LoadTimeRecord(*row) for row in _rows(connection, _SQL["load_times"])]


def put_launch(connection: apsw.Connection, record: LaunchRecord) -> None:
    """Insert or replace."""
    connection.execute(_SQL["put_launch"], astuple(record))


def select_launches(connection: apsw.Connection) -> list[LaunchRecord]:
    """By model."""
    return [LaunchRecord(*row) for row in _rows(connection, _SQL["launches"])]


def append_alarm(connection: apsw.Connection, record: AlarmRecord) -> AlarmRecord:
    """Insert, and let the oldest go."""
    bindings = (record.worker_id, record.code, record.message, record.at_ms)
    [(alarm_id,)] = _rows(connection, _SQL["insert_alarm"], bindings)
    connection.execute(_SQL["drop_old_alarms"], (alarm_id - ALARMS_KEPT,))
    return replace(record, alarm_id=alarm_id)


def select_alarms(connection: apsw.Connection, limit: int) -> list[AlarmRecord]:
    """Newest first."""
    return [AlarmRecord(*row) for row in _rows(connection, _SQL["alarms"], (limit,))]


def append_decisions(connection: apsw.Connection, records: Sequence[DecisionRecord]) -> None:
    """Insert, and let go of what is too old or too many."""
    if not records:
        return
    connection.executemany(_SQL["insert_decision"], [(each.at_ms, each.kind, each.facts) for each in records])
    before_ms = max(each.at_ms for each in records) - DECISIONS_KEPT_MS
    connection.execute(_SQL["drop_old_decisions"], {"before_ms": before_ms, "kept": DECISIONS_KEPT})


def select_decisions(connection: apsw.Connection, since_ms: int, after_id: int, limit: int) -> list[DecisionRecord]:
    """By rising id."""
    found: list[DecisionRecord] = []
    size_bytes = 0
    with closing(connection.execute(_SQL["decisions"], (after_id, since_ms, limit))) as rows:
        for row in rows:
            found.append(DecisionRecord(*row))
            size_bytes += len(found[-1].facts)
            if size_bytes >= READ_BYTES:
                break
    return found


def next_epoch(connection: apsw.Connection, above: int) -> int:
    """One more than ever before, and than ``above``."""
    epoch: int = connection.execute(_SQL["next_epoch"], {"above": above}).get
    return epoch


def prune(connection: apsw.Connection, before_ms: int, limit: int) -> int:
    """Delete at most ``limit`` finished tasks, those that finished first."""
    connection.execute(_SQL["prune"], (before_ms, limit))
    return connection.changes()


def _rows(connection: apsw.Connection, sql: str, bindings: Any = ()) -> list[tuple[Any, ...]]:
    return connection.execute(sql, bindings).fetchall()


def _submission(connection: apsw.Connection, task_id: TaskId) -> int:
    rows = _rows(connection, _SQL["submission"], (task_id,))
    if not rows:
        raise NotFoundError(f"no task {task_id}")
    submission: int = rows[0][0]
    return submission


def _token_row(seq: int, text: str, token_ids: str | None, data: bytes | None, media_type: Any) -> TokenRow:
    return TokenRow(seq, text, _TOKEN_IDS.decode(token_ids) if token_ids else (), data, media_type)


def _encode_ids(token_ids: tuple[int, ...]) -> str | None:
    return msgspec.json.encode(token_ids).decode() if token_ids else None
