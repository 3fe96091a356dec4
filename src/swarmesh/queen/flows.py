"""Durable tasks: on disk before they are acknowledged, their tokens kept, readable from anywhere afterwards."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from msgspec import UNSET

from swarmesh.core.commands import RecordTask
from swarmesh.core.errors import InvalidValueError, NotFoundError, SwarmeshError
from swarmesh.core.events import TaskCancelled, TaskSubmitted
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.core.task import TaskStatus
from swarmesh.net.event_stream import EventStream
from swarmesh.net.exchange import Exchange
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.flow import FLOW_DIALECT, Dialect, Flow, failed, flow_view, is_shown_to, shown_tokens, tokens_view
from swarmesh.queen.flow_run import FlowRun
from swarmesh.queen.flow_saver import RETRY_S, FlowSaver
from swarmesh.queen.refusal_book import RefusalBook
from swarmesh.queen.start_progress import start_progress, waiting_words
from swarmesh.queen.vigil import Vigil
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow
from swarmesh.store.store import Store
from swarmesh.wire.body import decode_body
from swarmesh.wire.flow import DoneData, FlowView, Submission, TokensView
from swarmesh.wire.http1 import Headers

PING_INTERVAL_S: Final = 5.0
DAY_MS: Final = 86_400_000
IDEMPOTENCY_KEY_MAX: Final = 256

_decoder = msgspec.json.Decoder(Submission)


class Flows:
    """Every nectarflow: the living ones in memory, all of them in the hivecomb.

    Where a ``key_id`` is asked for, a task of another key counts as not known; None stands for all keys.
    """

    def __init__(self, driver: Driver, store: Store, vigil: Vigil, *, epoch: int = 0) -> None:
        self._driver = driver
        self._store = store
        self._vigil = vigil
        self._epoch = epoch
        self._saver = FlowSaver(store)
        self._flows: dict[TaskId, Flow] = {}
        self._runs: dict[TaskId, FlowRun] = {}
        self._done: dict[TaskId, DoneData] = {}
        self._loop = asyncio.get_running_loop()
        self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._ping)

    @property
    def refused(self) -> RefusalBook:
        """Where tasks are entered that are not taken in."""
        return self._driver.refused

    def __len__(self) -> int:
        """How many are queued or running."""
        return len(self._flows)

    def read(self, body: bytes) -> Submission:
        """A submission from its JSON.

        Raises:
            BadInputError: It is none, or not exactly one of prompt, messages and input is given.
        """
        submission = decode_body(_decoder, body)
        given = [name for name in ("prompt", "messages", "input") if getattr(submission, name) not in (None, UNSET)]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise InvalidValueError(f"exactly one of 'prompt', 'messages' and 'input' is needed; {said} came")
        return submission

    async def submit(
        self,
        task_id: TaskId,
        submission: Submission,
        body: bytes,
        *,
        model: ModelName,
        model_known: bool,
        key_id: KeyId,
        idempotency_key: str | None,
    ) -> TaskRecord:
        """Take a task in; returns when it is on disk. The same idempotency key gets the same task.

        Raises:
            SwarmeshError: It cannot be kept, or the queue refuses it.
        """
        if idempotency_key is not None and not 0 < len(idempotency_key) <= IDEMPOTENCY_KEY_MAX:
            raise InvalidValueError(f"Idempotency-Key has 1 to {IDEMPOTENCY_KEY_MAX} characters")
        record = TaskRecord(
            task_id=task_id,
            status=TaskStatus.QUEUED.value,
            modelcell=model,
            priority=submission.priority.value,
            key_id=key_id,
            request=body,
            created_at_ms=_unix_ms(),
            idempotency_key=idempotency_key,
            epoch=self._epoch,
        )
        event = _event(record, submission, model_known=model_known)
        refusal = self._driver.swarm.dispatcher.refusal(event, now_ms())
        if refusal is not None:
            known = await self._known(key_id, idempotency_key)
            if known is not None:
                return known
            self.refused.add(event, refusal)
            raise refusal  # Before it is kept: a refused task must not use up its idempotency key.
        kept = await self._store.insert_task(record)
        if kept.task_id == record.task_id:
            run = self._hand_in(Flow(kept), submission, msgspec.structs.replace(event, checked=True))
            if run.error is not None:
                raise run.error
        flow = self._flows.get(kept.task_id)
        return flow.record if flow is not None else kept

    async def resume(self) -> None:
        """After a restart: what ran goes on where it ran, what waited waits in the order it came in."""
        unfinished = await self._store.unfinished_tasks()
        unfinished.sort(key=self._turn)
        for record in unfinished:
            rows = await self._rows(record.task_id, 0) if record.attempts else []
            try:
                submission = self.read(record.request)
            except SwarmeshError as error:  # An older queen took it in; it must not keep this one from starting.
                await self._fail_stored(record, error)
                continue
            event = _event(record, submission, model_known=True, accepted=True)
            waiting = msgspec.structs.replace(record, status=TaskStatus.QUEUED.value, epoch=self._epoch)
            self._hand_in(Flow(waiting, rows), submission, event)

    async def follow(
        self,
        task_id: TaskId,
        exchange: Exchange,
        *,
        key_id: KeyId | None,
        after_seq: int,
        first: bytes = b"",
        dialect: Dialect = FLOW_DIALECT,
        headers: Headers | None = None,
    ) -> None:
        """Answer with the task's events from ``after_seq`` on.

        Raises:
            NotFoundError: There is no such task.
        """
        flow = self._living(task_id, key_id)
        if flow is not None:
            if (progress := start_progress(self._driver, task_id)) is not None:
                first += dialect.progress(progress)
            flow.follow(exchange, after_seq=after_seq, first=first, dialect=dialect, headers=headers)
            return
        record, rows = await self._stored(task_id, key_id, after_seq)
        stream = EventStream(exchange, headers)
        opening = dialect.opening(record) if not after_seq else b""
        stream.send(first + opening + b"".join(map(dialect.token, rows)) + dialect.closing(record))
        stream.end()

    async def view(self, task_id: TaskId, key_id: KeyId | None) -> FlowView:
        """A task's state.

        Raises:
            NotFoundError: There is no such task.
        """
        flow = self._living(task_id, key_id)
        record = flow.record if flow is not None else await self._record(task_id, key_id)
        return flow_view(record, self._driver.book.latest(task_id), waiting_words(self._driver, task_id))

    async def tokens(self, task_id: TaskId, key_id: KeyId | None) -> TokensView:
        """What a task produced so far.

        Raises:
            NotFoundError: There is no such task.
        """
        flow = self._living(task_id, key_id)
        if flow is not None:
            return tokens_view(flow.record, flow.rows)
        return tokens_view(*await self._stored(task_id, key_id, 0))

    async def recent(self, statuses: list[str], limit: int, key_id: KeyId | None) -> list[FlowView]:
        """The newest tasks, of all keys or of one."""
        records = await self._store.tasks(statuses=statuses, limit=limit, key_id=key_id)
        return [flow_view(record, self._driver.book.latest(record.task_id)) for record in records]

    async def cancel(self, task_id: TaskId, key_id: KeyId | None) -> FlowView:
        """End a task; one that is over stays as it is.

        Raises:
            NotFoundError: There is no such task.
        """
        if (flow := self._living(task_id, key_id)) is not None:
            self._driver.post(TaskCancelled(task_id, shown_tokens(flow)))
            await self._saver.saved(task_id)  # Not all that others write: that may never come to an end.
        return await self.view(task_id, key_id)

    async def forget_old(self, keep_days: int) -> None:
        """Let go of tasks that ended more than ``keep_days`` ago."""
        await self._store.prune(_unix_ms() - keep_days * DAY_MS)

    async def settle(self) -> None:
        """Wait until everything that was produced is on disk."""
        await self._saver.settle()

    async def close(self) -> None:
        """Save what is there; running tasks stay unfinished in the hivecomb, and go on where they run."""
        self._ping_timer.cancel()
        for run in self._runs.values():
            run.hang_up()
        await self._saver.close()

    # Effects

    def record_task(self, command: RecordTask) -> None:
        """Write a task's new state; a final one ends the flow."""
        flow = self._flows.get(command.task_id)
        if flow is None:
            return
        record = msgspec.structs.replace(
            flow.record,
            status=command.status.value,
            attempts=command.attempt,
            kills=command.kills,
            worker_id=command.worker_id or flow.record.worker_id,
            started_at_ms=flow.record.started_at_ms or (_unix_ms() if command.attempt else None),
        )
        if command.status is TaskStatus.FAILED:
            # The error comes with the next command and is written together with the status.
            flow.record = msgspec.structs.replace(record, status=flow.record.status)
        elif command.status.is_final:
            self._over(flow, _with_usage(record, self._done.pop(record.task_id, None)))
        else:
            flow.record = record
            self._saver.patch(record.task_id, _running_patch(record))

    # FlowKeeper

    def when_recorded(self, flow: Flow, go_on: Callable[[], None]) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        self._saver.when_saved(flow.task_id, go_on)

    def produced(self, flow: Flow, row: TokenRow) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        flow.append(row)
        self._saver.add_row(flow.task_id, row)

    def ended(self, flow: Flow, done: DoneData) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        self._done[flow.task_id] = done

    def failed(self, flow: Flow, error: SwarmeshError) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        self._over(flow, failed(flow.record, error, at_ms=_unix_ms()))

    # inside

    def _turn(self, record: TaskRecord) -> int:
        # Workers have gone on with what ran; were their slots given to others first, it would have to begin elsewhere.
        if record.status == TaskStatus.RUNNING:
            return int(record.worker_id not in self._driver.swarm.fleet)
        return 2 if record.attempts else 3

    def _hand_in(self, flow: Flow, submission: Submission, event: TaskSubmitted) -> FlowRun:
        task_id = flow.task_id
        run = FlowRun(self, self._driver, flow, submission, event)
        self._flows[task_id], self._runs[task_id] = flow, run
        self._vigil.add(run)
        self._driver.run(run)
        return run

    def _over(self, flow: Flow, record: TaskRecord) -> None:
        self._vigil.remove(self._runs.pop(flow.task_id))
        self._saver.patch(record.task_id, _final_patch(record))
        # Told when it is on disk: an end that a crash takes back would come a second time, and could be another.
        self._saver.when_saved(record.task_id, partial(self._tell_end, flow, record))

    def _tell_end(self, flow: Flow, record: TaskRecord) -> None:
        flow.over(record)
        self._saved(record.task_id)

    def _saved(self, task_id: TaskId) -> None:
        if self._saver.has(task_id):
            # The hivecomb takes nothing at the moment; until it does, the task is to be had from memory.
            self._loop.call_later(RETRY_S, self._saved, task_id)
        else:
            self._flows.pop(task_id, None)

    async def _known(self, key_id: KeyId, idempotency_key: str | None) -> TaskRecord | None:
        # A submission that is repeated gets its first answer, also when nothing new would be taken in.
        if idempotency_key is None:
            return None
        known = await self._store.task_by_idempotency_key(key_id, idempotency_key)
        flow = self._flows.get(known.task_id) if known is not None else None
        return flow.record if flow is not None else known

    def _ping(self) -> None:
        for flow in self._flows.values():
            flow.ping()
        self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._ping)

    async def _fail_stored(self, record: TaskRecord, error: SwarmeshError) -> None:
        over = failed(record, error, at_ms=_unix_ms())
        await self._store.update_task(record.task_id, _final_patch(over))

    def _living(self, task_id: TaskId, key_id: KeyId | None) -> Flow | None:
        flow = self._flows.get(task_id)
        return flow if flow is not None and is_shown_to(key_id, flow.record) else None

    async def _record(self, task_id: TaskId, key_id: KeyId | None) -> TaskRecord:
        record = await self._store.task(task_id)
        if record is None or not is_shown_to(key_id, record):
            raise NotFoundError(f"no nectarflow is called {task_id!r}", hint="'swarmesh nectarflow list' shows them.")
        return record

    async def _stored(self, task_id: TaskId, key_id: KeyId | None, after_seq: int) -> tuple[TaskRecord, list[TokenRow]]:
        return await self._record(task_id, key_id), await self._rows(task_id, after_seq)

    async def _rows(self, task_id: TaskId, after_seq: int) -> list[TokenRow]:
        rows: list[TokenRow] = []
        while page := await self._store.tokens(task_id, after_seq=rows[-1].seq if rows else after_seq):
            rows += page
        return rows


def new_task_id() -> TaskId:
    """A name that no other task has."""
    return TaskId(f"flow-{secrets.token_hex(6)}")


def _event(record: TaskRecord, submission: Submission, *, model_known: bool, accepted: bool = False) -> TaskSubmitted:
    return TaskSubmitted(
        task_id=record.task_id,
        model=record.modelcell,
        priority=submission.priority,
        key_id=record.key_id,
        prompt_chars=len(record.request),
        max_tokens=submission.max_tokens or 0,
        durable=True,
        model_known=model_known,
        resumable=True,
        fingerprint=hash((record.modelcell, record.request)),
        prefix=submission.prefix(),
        accepted=accepted,
        attempts=record.attempts,
        kills=record.kills,
        running_on=record.worker_id if accepted and record.status == TaskStatus.RUNNING else None,
    )


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _with_usage(record: TaskRecord, done: DoneData | None) -> TaskRecord:
    if done is None:
        return msgspec.structs.replace(record, finished_at_ms=_unix_ms())
    return msgspec.structs.replace(
        record,
        finished_at_ms=_unix_ms(),
        finish_reason=done.finish_reason,
        prompt_tokens=done.usage.prompt_tokens,
        completion_tokens=done.usage.completion_tokens,
    )


def _running_patch(record: TaskRecord) -> TaskPatch:
    return TaskPatch(
        status=record.status,
        attempts=record.attempts,
        kills=record.kills,
        epoch=record.epoch,
        worker_id=record.worker_id,
        started_at_ms=record.started_at_ms,
    )


def _final_patch(record: TaskRecord) -> TaskPatch:
    return TaskPatch(
        status=record.status,
        attempts=record.attempts,
        worker_id=record.worker_id,
        started_at_ms=record.started_at_ms,
        finished_at_ms=record.finished_at_ms,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        finish_reason=record.finish_reason,
        error_code=record.error_code,
        error_message=record.error_message,
        error_hint=record.error_hint,
    )
