"""The hivecomb without a disk: what tests and throw-away swarms use."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice

from msgspec.structs import replace

from swarmesh.core.errors import ConflictError, NotFoundError
from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId, WorkerId
from swarmesh.store.errors import StoreClosedError
from swarmesh.store.records import (
    FINISHED,
    UNFINISHED,
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
from swarmesh.store.store import (
    ALARMS_KEPT,
    DECISIONS_KEPT,
    DECISIONS_KEPT_MS,
    LOAD_TIMES_KEPT,
    READ_BYTES,
    READ_LIMIT,
    check_limit,
)


class MemoryStore:
    """A ``Store`` that forgets everything when its process ends; otherwise like the SQLite one."""

    def __init__(self) -> None:
        self._tasks: dict[TaskId, TaskRecord] = {}
        self._tokens: dict[TaskId, dict[int, TokenRow]] = {}
        self._by_idempotency_key: dict[tuple[KeyId, str], TaskId] = {}
        self._workers: dict[WorkerId, WorkerRecord] = {}
        self._hosts: dict[HostName, HostRecord] = {}
        self._keys: dict[KeyId, KeyRecord] = {}
        self._scales: dict[ModelName, ScaleRecord] = {}
        self._load_times: dict[tuple[ModelName, HostName], LoadTimeRecord] = {}
        self._launches: dict[ModelName, LaunchRecord] = {}
        self._alarms: deque[AlarmRecord] = deque(maxlen=ALARMS_KEPT)
        self._last_alarm_id = 0
        self._decisions: deque[DecisionRecord] = deque(maxlen=DECISIONS_KEPT)
        self._last_decision_id = 0
        self._epoch = 0
        self._closed = False

    async def insert_task(self, record: TaskRecord) -> TaskRecord:
        """See ``Store``."""
        self._check_open()
        if record.idempotency_key is not None:
            earlier = self._by_idempotency_key.get((record.key_id, record.idempotency_key))
            if earlier is not None:
                return self._tasks[earlier]
        if record.task_id in self._tasks:
            raise ConflictError(f"task {record.task_id} exists already")
        if record.idempotency_key is not None:
            self._by_idempotency_key[record.key_id, record.idempotency_key] = record.task_id
        self._tasks[record.task_id] = record
        self._tokens[record.task_id] = {}
        return record

    async def update_task(self, task_id: TaskId, patch: TaskPatch) -> None:
        """See ``Store``."""
        self._check_task(task_id)
        self._tasks[task_id] = replace(self._tasks[task_id], **patch.changes())

    async def append_tokens(self, task_id: TaskId, rows: Sequence[TokenRow]) -> None:
        """See ``Store``."""
        self._check_task(task_id)
        for row in rows:
            self._tokens[task_id].setdefault(row.seq, row)

    async def finish_task(self, task_id: TaskId, rows: Sequence[TokenRow], patch: TaskPatch) -> None:
        """See ``Store``."""
        await self.append_tokens(task_id, rows)
        await self.update_task(task_id, patch)

    async def task(self, task_id: TaskId) -> TaskRecord | None:
        """See ``Store``."""
        self._check_open()
        return self._tasks.get(task_id)

    async def task_by_idempotency_key(self, key_id: KeyId, idempotency_key: str) -> TaskRecord | None:
        """See ``Store``."""
        self._check_open()
        task_id = self._by_idempotency_key.get((key_id, idempotency_key))
        return None if task_id is None else self._tasks[task_id]

    async def tasks(
        self,
        *,
        statuses: Sequence[str] = (),
        limit: int = 100,
        before_ms: int | None = None,
        key_id: KeyId | None = None,
    ) -> list[TaskRecord]:
        """See ``Store``."""
        self._check_open()
        check_limit(limit)
        wanted = [
            record
            for record in reversed(self._tasks.values())
            if (not statuses or record.status in statuses)
            and (before_ms is None or record.created_at_ms < before_ms)
            and key_id in (None, record.key_id)
        ]
        # Sorting is stable: of two that were made in one millisecond the later submission stays first.
        wanted.sort(key=lambda record: -record.created_at_ms)
        return [replace(record, request=b"") for record in wanted[:limit]]

    async def unfinished_tasks(self) -> list[TaskRecord]:
        """See ``Store``."""
        self._check_open()
        return [record for record in self._tasks.values() if record.status in UNFINISHED]

    async def tokens(self, task_id: TaskId, *, after_seq: int = 0, limit: int = READ_LIMIT) -> list[TokenRow]:
        """See ``Store``."""
        self._check_open()
        check_limit(limit)
        rows = self._tokens.get(task_id, {})
        following = [rows[seq] for seq in sorted(rows) if seq > after_seq][:limit]
        sizes_bytes = accumulate(row.size_bytes for row in following)
        fitting = sum(1 for size_bytes in sizes_bytes if size_bytes < READ_BYTES)
        return following[: fitting + 1]

    async def put_worker(self, record: WorkerRecord) -> None:
        """See ``Store``."""
        self._check_open()
        self._workers[record.worker_id] = record

    async def delete_worker(self, worker_id: WorkerId) -> None:
        """See ``Store``."""
        self._check_open()
        self._workers.pop(worker_id, None)

    async def workers(self) -> list[WorkerRecord]:
        """See ``Store``."""
        self._check_open()
        return [self._workers[worker_id] for worker_id in sorted(self._workers)]

    async def put_host(self, record: HostRecord) -> None:
        """See ``Store``."""
        self._check_open()
        self._hosts[record.name] = record

    async def delete_host(self, name: HostName) -> None:
        """See ``Store``."""
        self._check_open()
        self._hosts.pop(name, None)

    async def hosts(self) -> list[HostRecord]:
        """See ``Store``."""
        self._check_open()
        return [self._hosts[name] for name in sorted(self._hosts)]

    async def put_key(self, record: KeyRecord) -> None:
        """See ``Store``."""
        self._check_open()
        self._keys[record.key_id] = record

    async def delete_key(self, key_id: KeyId) -> None:
        """See ``Store``."""
        self._check_open()
        self._keys.pop(key_id, None)

    async def keys(self) -> list[KeyRecord]:
        """See ``Store``."""
        self._check_open()
        return [self._keys[key_id] for key_id in sorted(self._keys)]

    async def put_scale(self, record: ScaleRecord) -> None:
        """See ``Store``."""
        self._check_open()
        self._scales[record.model] = record

    async def delete_scale(self, model: ModelName) -> None:
        """See ``Store``."""
        self._check_open()
        self._scales.pop(model, None)

    async def scales(self) -> list[ScaleRecord]:
        """See ``Store``."""
        self._check_open()
        return [self._scales[model] for model in sorted(self._scales)]

    async def put_load_time(self, record: LoadTimeRecord) -> None:
        """See ``Store``."""
        self._check_open()
        self._load_times[record.model, record.host] = record
        by_age = sorted(self._load_times.values(), key=lambda each: (-each.measured_at_ms, each.model, each.host))
        for old in by_age[LOAD_TIMES_KEPT:]:
            del self._load_times[old.model, old.host]

    async def load_times(self) -> list[LoadTimeRecord]:
        """See ``Store``."""
        self._check_open()
        return [self._load_times[key] for key in sorted(self._load_times)]

    async def put_launch(self, record: LaunchRecord) -> None:
        """See ``Store``."""
        self._check_open()
        self._launches[record.model] = record

    async def launches(self) -> list[LaunchRecord]:
        """See ``Store``."""
        self._check_open()
        return [self._launches[model] for model in sorted(self._launches)]

    async def append_alarm(self, record: AlarmRecord) -> AlarmRecord:
        """See ``Store``."""
        self._check_open()
        self._last_alarm_id += 1
        alarm = replace(record, alarm_id=self._last_alarm_id)
        self._alarms.append(alarm)
        return alarm

    async def alarms(self, limit: int = 100) -> list[AlarmRecord]:
        """See ``Store``."""
        self._check_open()
        check_limit(limit)
        return list(islice(reversed(self._alarms), limit))

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """See ``Store``."""
        self._check_open()
        for record in records:
            self._last_decision_id += 1
            self._decisions.append(replace(record, decision_id=self._last_decision_id))
        before_ms = max((record.at_ms for record in records), default=0) - DECISIONS_KEPT_MS
        kept = [record for record in self._decisions if record.at_ms >= before_ms]
        self._decisions = deque(kept, maxlen=DECISIONS_KEPT)

    async def decisions(self, since_ms: int, *, after_id: int = 0, limit: int = READ_LIMIT) -> list[DecisionRecord]:
        """See ``Store``."""
        self._check_open()
        check_limit(limit)
        later = (record for record in self._decisions if record.decision_id > after_id and record.at_ms >= since_ms)
        found = list(islice(later, limit))
        sizes = accumulate(len(record.facts) for record in found)
        full = next((count for count, size in enumerate(sizes, start=1) if size >= READ_BYTES), limit)
        return found[:full]

    async def next_epoch(self, *, above: int = 0) -> int:
        """See ``Store``."""
        self._check_open()
        self._epoch = max(self._epoch, above) + 1
        return self._epoch

    async def prune(self, before_ms: int) -> int:
        """See ``Store``."""
        self._check_open()
        old = [
            record
            for record in self._tasks.values()
            if record.status in FINISHED and record.finished_at_ms is not None and record.finished_at_ms < before_ms
        ]
        for record in old:
            del self._tasks[record.task_id], self._tokens[record.task_id]
            if record.idempotency_key is not None:
                del self._by_idempotency_key[record.key_id, record.idempotency_key]
        return len(old)

    async def close(self) -> None:
        """See ``Store``."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError

    def _check_task(self, task_id: TaskId) -> None:
        self._check_open()
        if task_id not in self._tasks:
            raise NotFoundError(f"no task {task_id}")
