"""Durable tasks: on disk before they are acknowledged, their tokens kept, readable from anywhere afterwards."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import structlog
from msgspec import UNSET

from swarmesh.core.commands import RecordTask
from swarmesh.core.errors import InvalidValueError, NotFoundError, SwarmeshError
from swarmesh.core.events import TaskCancelled, TaskSubmitted
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.core.routing import Decision
from swarmesh.core.task import TaskStatus
from swarmesh.net.event_stream import EventStream
from swarmesh.net.exchange import Exchange
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.flow import Flow, failed, final_event, flow_view, token_event, tokens_view
from swarmesh.queen.flow_run import FlowRun
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow
from swarmesh.store.store import Store
from swarmesh.wire.body import decode_body
from swarmesh.wire.flow import DoneData, FlowView, Submission, TokensView

TOKENS_FLUSH_S: Final = 0.2
"""Longest time a produced token waits for its place on disk; a client never waits for it."""
PING_INTERVAL_S: Final = 5.0
DECISIONS_MAX: Final = 1_000
"""Decisions that can still be explained."""
DAY_MS: Final = 86_400_000
IDEMPOTENCY_KEY_MAX: Final = 256

log = structlog.get_logger("flows")
_decoder = msgspec.json.Decoder(Submission)


class QueenRestartedError(SwarmeshError):
    """The queennode was restarted while this task ran."""

    code = "queen_restarted"
    status = 502
    default_hint = "What it had produced is kept; submit it again for the whole."


class Flows:
    """Every nectarflow: the living ones in memory, all of them in the hivecomb."""

    def __init__(self, driver: Driver, store: Store) -> None:
        self._driver = driver
        self._store = store
        self._flows: dict[TaskId, Flow] = {}
        self._unsaved: dict[TaskId, list[TokenRow]] = {}
        self._done: dict[TaskId, DoneData] = {}
        self._decisions: OrderedDict[TaskId, Decision] = OrderedDict()
        self._writes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._ping)

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
            task_id=TaskId(f"flow-{secrets.token_hex(6)}"),
            status=TaskStatus.QUEUED.value,
            modelcell=model,
            priority=submission.priority.value,
            key_id=key_id,
            request=body,
            created_at_ms=_unix_ms(),
            idempotency_key=idempotency_key,
        )
        event = _event(record, submission, model_known=model_known)
        refusal = self._driver.swarm.dispatcher.refusal(event, now_ms())
        if refusal is not None:
            raise refusal  # Before it is kept: a refused task must not use up its idempotency key.
        kept = await self._store.insert_task(record)
        if kept.task_id == record.task_id:
            run = self._hand_in(kept, submission, event)
            if run.error is not None:
                raise run.error
        flow = self._flows.get(kept.task_id)
        return flow.record if flow is not None else kept

    async def resume(self) -> None:
        """After a restart: queue what waited; what had begun to answer cannot go on yet and says so."""
        for record in await self._store.unfinished_tasks():
            if await self._store.tokens(record.task_id, limit=1):
                await self._fail_stored(record, QueenRestartedError())
                continue
            try:
                submission = self.read(record.request)
            except SwarmeshError as error:  # An older queen took it in; it must not keep this one from starting.
                await self._fail_stored(record, error)
            else:
                waiting = msgspec.structs.replace(record, status=TaskStatus.QUEUED.value)
                self._hand_in(waiting, submission, _event(waiting, submission, model_known=True, accepted=True))

    async def follow(self, task_id: TaskId, exchange: Exchange, *, after_seq: int, first: bytes = b"") -> None:
        """Answer with the task's events from ``after_seq`` on.

        Raises:
            NotFoundError: There is no such task.
        """
        flow = self._flows.get(task_id)
        if flow is not None:
            flow.follow(exchange, after_seq=after_seq, first=first)
            return
        record, rows = await self._stored(task_id, after_seq)
        stream = EventStream(exchange)
        stream.send(first + b"".join(map(token_event, rows)) + final_event(record))
        stream.end()

    async def view(self, task_id: TaskId) -> FlowView:
        """A task's state.

        Raises:
            NotFoundError: There is no such task.
        """
        flow = self._flows.get(task_id)
        record = flow.record if flow is not None else await self._record(task_id)
        return flow_view(record, self._decisions.get(task_id))

    async def tokens(self, task_id: TaskId) -> TokensView:
        """What a task produced so far.

        Raises:
            NotFoundError: There is no such task.
        """
        flow = self._flows.get(task_id)
        if flow is not None:
            return tokens_view(flow.record, flow.rows)
        return tokens_view(*await self._stored(task_id, 0))

    async def recent(self, statuses: list[str], limit: int) -> list[FlowView]:
        """The newest tasks."""
        records = await self._store.tasks(statuses=statuses, limit=limit)
        return [flow_view(record, self._decisions.get(record.task_id)) for record in records]

    async def cancel(self, task_id: TaskId) -> FlowView:
        """End a task; one that is over stays as it is.

        Raises:
            NotFoundError: There is no such task.
        """
        if task_id in self._flows:
            self._driver.post(TaskCancelled(task_id))
            await self.settle()
        return await self.view(task_id)

    async def forget_old(self, keep_days: int) -> None:
        """Let go of tasks that ended more than ``keep_days`` ago."""
        await self._store.prune(_unix_ms() - keep_days * DAY_MS)

    async def settle(self) -> None:
        """Wait until everything that was produced is on disk."""
        self._flush()
        while self._writes:
            await asyncio.gather(*self._writes, return_exceptions=True)

    async def close(self) -> None:
        """Save what is there; running tasks stay unfinished in the hivecomb."""
        self._ping_timer.cancel()
        await self.settle()

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
            worker_id=command.worker_id or flow.record.worker_id,
            started_at_ms=flow.record.started_at_ms or (_unix_ms() if command.attempt else None),
        )
        flow.record = record
        if command.status is TaskStatus.FAILED:
            return  # The error comes with the next command and is written together with the status.
        if command.status.is_final:
            self._over(flow, _with_usage(record, self._done.pop(record.task_id, None)))
        else:
            self._write(self._store.update_task(record.task_id, _running_patch(record)))

    # FlowKeeper

    def decided(self, flow: Flow, decision: Decision) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        self._decisions[flow.task_id] = decision
        while len(self._decisions) > DECISIONS_MAX:
            self._decisions.popitem(last=False)

    def produced(self, flow: Flow, row: TokenRow) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        flow.append(row)
        self._unsaved.setdefault(flow.task_id, []).append(row)
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(TOKENS_FLUSH_S, self._flush)

    def ended(self, flow: Flow, done: DoneData) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        self._done[flow.task_id] = done

    def failed(self, flow: Flow, error: SwarmeshError) -> None:
        """See `swarmesh.queen.flow_run.FlowKeeper`."""
        self._over(flow, failed(flow.record, error, at_ms=_unix_ms()))

    # inside

    def _hand_in(self, record: TaskRecord, submission: Submission, event: TaskSubmitted) -> FlowRun:
        flow = Flow(record)
        self._flows[record.task_id] = flow
        run = FlowRun(self, self._driver, flow, submission)
        self._driver.run(record.task_id, run, event)
        return run

    def _over(self, flow: Flow, record: TaskRecord) -> None:
        self._flush()
        flow.over(record)
        self._write(self._finish(record))

    async def _finish(self, record: TaskRecord) -> None:
        await self._store.update_task(record.task_id, _final_patch(record))
        # From here on the hivecomb has all of it.
        self._flows.pop(record.task_id, None)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        unsaved, self._unsaved = self._unsaved, {}
        for task_id, rows in unsaved.items():
            self._write(self._store.append_tokens(task_id, rows))

    def _write(self, write: Coroutine[Any, Any, None]) -> None:
        # Tasks start in the order they are made, and the store keeps the order of its calls.
        task = self._loop.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("hivecomb_write_failed", error=str(error))

    def _ping(self) -> None:
        for flow in self._flows.values():
            flow.ping()
        self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._ping)

    async def _fail_stored(self, record: TaskRecord, error: SwarmeshError) -> None:
        over = failed(record, error, at_ms=_unix_ms())
        await self._store.update_task(record.task_id, _final_patch(over))

    async def _record(self, task_id: TaskId) -> TaskRecord:
        record = await self._store.task(task_id)
        if record is None:
            raise NotFoundError(f"no nectarflow is called {task_id!r}", hint="'swarmesh nectarflow list' shows them.")
        return record

    async def _stored(self, task_id: TaskId, after_seq: int) -> tuple[TaskRecord, list[TokenRow]]:
        record = await self._record(task_id)
        rows: list[TokenRow] = []
        while page := await self._store.tokens(task_id, after_seq=rows[-1].seq if rows else after_seq):
            rows += page
        return record, rows


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
        accepted=accepted,
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
