"""Carries one nectarflow from a worker's stream into its flow: a `Runner` to the driver, a `Sink` to the connection."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from swarmesh.core.commands import BreakStream, StartStream
from swarmesh.core.decision import POLICY_RETURN
from swarmesh.core.errors import EngineError, ResumeDivergedError, SwarmeshError, TaskRefusedError
from swarmesh.core.events import StreamBegan, StreamBroke, StreamProgressed, TaskSubmitted
from swarmesh.core.ids import Blame
from swarmesh.net.upstream import UpstreamCall
from swarmesh.queen.answer_report import AnswerReport
from swarmesh.queen.driver import Driver
from swarmesh.queen.flow import JSON_TYPE, Flow
from swarmesh.queen.links import EXECUTE_TARGET, Dialect, WorkerLink
from swarmesh.queen.openai_stream import OpenAiStream, chat_body
from swarmesh.queen.refusal import Refusal
from swarmesh.queen.start_progress import start_progress
from swarmesh.queen.vigil import PROGRESS_EVENTS, SILENT_TICKS_MAX
from swarmesh.store.records import TokenRow
from swarmesh.wire.flow import DoneData, ErrorData, ExecuteRequest, Submission, TokenData, Usage
from swarmesh.wire.http1 import Framer, ResponseHead
from swarmesh.wire.resume import Resume
from swarmesh.wire.sse import SseEvent, SseReader
from swarmesh.wire.token_counts import NOT_TOLD, UNKNOWN, TokenCounts, counted

GONE: Final = frozenset({404, 409})
"""What an agent answers that has not, or no longer, what it is asked to go on with."""

PROGRESS_TICKS: Final = 4
"""2 s: so often followers hear how far the start is that their task waits for."""

_token_decoder = msgspec.json.Decoder(TokenData)
_done_decoder = msgspec.json.Decoder(DoneData)
_error_decoder = msgspec.json.Decoder(ErrorData)


class FlowKeeper(Protocol):
    """Who keeps what a run brings (`swarmesh.queen.flows.Flows`)."""

    def when_recorded(self, flow: Flow, go_on: Callable[[], None]) -> None:
        """Call back once the attempt that was just decided is counted on disk."""

    def produced(self, flow: Flow, row: TokenRow) -> None:
        """A piece of the answer."""

    def ended(self, flow: Flow, done: DoneData) -> None:
        """The answer is whole."""

    def failed(self, flow: Flow, error: SwarmeshError) -> None:
        """There will be no whole answer."""


class FlowRun:
    """One durable task on its way through workers; watched for silence.

    Attributes:
        error: Why it failed, once it has.
    """

    def __init__(
        self, keeper: FlowKeeper, driver: Driver, flow: Flow, submission: Submission, submitted: TaskSubmitted
    ) -> None:
        self.submitted = submitted
        self._keeper = keeper
        self._driver = driver
        self._flow = flow
        self._submission = submission
        self.error: SwarmeshError | None = None
        self._command: StartStream | None = None
        self._link: WorkerLink | None = None
        self._attempt = 0
        self._worker_id = ""
        self._returning = False
        self._watched_events = 0
        self._quiet_ticks = 0
        self._waiting_ticks = 0
        self._call: UpstreamCall | None = None
        self._framer: Framer | None = None
        self._reader = SseReader()
        self._report = AnswerReport()
        self._foreign: OpenAiStream | None = None
        self._refusal: Refusal | None = None

    # Runner

    def start(self, command: StartStream, link: WorkerLink) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._command = command
        self._link = link
        self._waiting_ticks = 0
        self._attempt = command.attempt
        self._worker_id = link.worker_id
        self._watched_events = PROGRESS_EVENTS if command.watched else 0
        # What crashes the queen as well must not be tried for ever: it is counted before it is tried.
        self._keeper.when_recorded(self._flow, partial(self._open, command, link))

    def stop(self) -> None:
        """See `swarmesh.queen.driver.Runner`; the status was recorded by the command before."""
        self._leave()

    def preempt(self) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._leave()

    def break_off(self, command: BreakStream) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._broke(command.blame, command.code, command.message)

    def fail(self, error: SwarmeshError) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._leave()
        self.error = error
        self._keeper.failed(self._flow, error)

    def hang_up(self) -> None:
        """The queen ends; the worker may go on alone, for the next one."""
        if self._call is not None:
            self._call.cancel()
        self._call = self._command = None

    # Sink

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._quiet_ticks = 0
        if head is not None:
            self._framer = head.framer()
            if self._returning and head.status in GONE:
                if self._call is not None:
                    self._call.cancel()
                self._begin_here()
                return
            self._refusal = Refusal(head) if head.status >= 400 else None
        if self._refusal is not None:
            self._refusal.feed(data)
            if ended or self._refusal.is_full:
                self._refused(self._refusal)
            return
        try:
            self._read(data)
            if ended and self._call is not None and self._foreign is not None and self._foreign.is_finished:
                self._take(self._foreign.end())
        except ResumeDivergedError as error:
            self._broke(Blame.TASK, error.code, error.message)
            return
        except (SwarmeshError, msgspec.DecodeError, ValueError) as error:
            self._broke(Blame.WORKER, "garbage", f"{self._worker_id} sent what cannot be read: {error}")
            return
        if ended and self._call is not None:
            self._broke(Blame.WORKER, "stream_truncated", f"{self._worker_id} ended the stream without its end mark")

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._broke(Blame.WORKER, "stream_broke", reason)

    # Watched

    def tick(self) -> None:
        """See `swarmesh.queen.vigil.Watched`; only agents promise signs of life."""
        if self._command is None:
            self._wait()
        if self._call is None or self._foreign is not None:
            return
        self._quiet_ticks += 1
        if self._quiet_ticks >= SILENT_TICKS_MAX:
            words = f"{self._worker_id} sent nothing, not even a sign of life"
            self._broke(Blame.WORKER, "stream_silent", words)

    # inside

    def _wait(self) -> None:
        self._waiting_ticks += 1
        if self._waiting_ticks % PROGRESS_TICKS or not self._flow.is_followed:
            return
        if (progress := start_progress(self._driver, self._flow.task_id)) is not None:
            self._flow.tell(progress)

    def _open(self, command: StartStream, link: WorkerLink) -> None:
        if self._command is not command:
            return  # It was stopped, or sent elsewhere, while its attempt was being counted.
        self._returning = command.decision.policy == POLICY_RETURN and link.dialect is Dialect.AGENT
        if self._returning:
            self._listen()
            target = b"%s/%s?after=%d" % (EXECUTE_TARGET, command.task_id.encode(), len(self._flow.rows))
            self._call = link.get(target, self)
        else:
            self._begin_here()

    def _begin_here(self) -> None:
        # A worker that does not know the task (any more) is told where it stands.
        command, link = self._command, self._link
        assert command is not None
        assert link is not None
        self._returning = False
        self._listen()
        try:
            target, body = self._request(command, link)
        except TaskRefusedError as error:
            self._broke(Blame.TASK, error.code, error.message)
            return
        self._call = link.post(target, body, command.task_id, command.attempt, self)

    def _listen(self) -> None:
        self._reader = SseReader()
        self._report = AnswerReport()
        self._refusal = None
        self._foreign = None
        self._quiet_ticks = 0

    def _request(self, command: StartStream, link: WorkerLink) -> tuple[bytes, bytes]:
        if link.dialect is Dialect.AGENT:
            return EXECUTE_TARGET, msgspec.json.encode(_execute_request(self._submission, self._flow.rows))
        self._foreign = OpenAiStream(command.task_id, shown="".join(row.text for row in self._flow.rows))
        return b"/v1/chat/completions", chat_body(self._submission, link.remote_model or command.model)

    def _read(self, data: bytes) -> None:
        payload: list[bytes] = []
        if self._framer is not None:
            self._framer.feed(data, payload)
        for event in self._reader.feed(b"".join(payload)):
            for translated in self._foreign.translate(event) if self._foreign else (event,):
                if self._call is not None:  # Nothing counts after the end mark.
                    self._take(translated)

    def _take(self, event: SseEvent) -> None:
        if event.name == "token":
            self._produced(event)
        elif event.name == "done":
            self._done(_done_decoder.decode(event.data), event.counts)
        elif event.name == "error":
            error = _error_decoder.decode(event.data).error
            is_tasks = error.type == "invalid_request_error" or error.code == ResumeDivergedError.code
            self._broke(Blame.TASK if is_tasks else Blame.WORKER, error.code, error.message)

    def _produced(self, event: SseEvent) -> None:
        seq = len(self._flow.rows) + 1
        if event.seq is not None and self._foreign is None:
            if event.seq < seq:
                return
            if event.seq > seq:
                raise EngineError(f"event {event.seq} came where {seq} was due")
        if self._report.produced() and self._command is not None and self._command.timed:
            self._driver.post(StreamBegan(self._flow.task_id, self._attempt))
        self._keeper.produced(self._flow, _row(event, seq=seq))
        if self._watched_events:
            self._watched_events -= 1
            if not self._watched_events:
                self._driver.post(StreamProgressed(self._flow.task_id, self._attempt))

    def _done(self, done: DoneData, counts: TokenCounts | None) -> None:
        # The worker may take its time to close the stream; the answer is whole all the same.
        self._call = self._command = None
        usage, cached = done.usage, counts.cached if counts is not None else UNKNOWN
        self._report.counts = told = counted(usage.prompt_tokens, cached, usage.completion_tokens)
        if told is NOT_TOLD:  # It said what cannot be, and the hivecomb could not even keep that.
            done = msgspec.structs.replace(done, usage=Usage())
        self._keeper.ended(self._flow, done)
        self._driver.ended(self._report.ended(self._flow.task_id, self._attempt))

    def _refused(self, refusal: Refusal) -> None:
        if refusal.is_workers_fault:
            words = f"{self._worker_id} answered {refusal.status}: {refusal.error().message}"
            self._broke(Blame.WORKER, refusal.code, words, final=refusal.is_final)
        else:
            error = refusal.error()
            self._broke(Blame.TASK, error.code, error.message)

    def _broke(self, blame: Blame, code: str, message: str, *, final: bool = False) -> None:
        self._leave()
        self._driver.post(StreamBroke(self._flow.task_id, self._attempt, blame, code, message, final=final))

    def _leave(self) -> None:
        # An agent keeps a task going whose queen is gone; one that is not wanted any more has to be told.
        if self._call is not None:
            self._call.cancel()
            if self._link is not None and self._link.dialect is Dialect.AGENT:
                self._link.abandon(self._flow.task_id, self._attempt)
        self._call = self._command = None


def _execute_request(submission: Submission, rows: list[TokenRow]) -> ExecuteRequest:
    return ExecuteRequest(
        prompt=submission.prompt,
        messages=submission.messages,
        input=submission.input,
        max_tokens=submission.max_tokens,
        temperature=submission.temperature,
        top_p=submission.top_p,
        seed=submission.seed,
        stop=submission.stop,
        resume=_resume(rows) if rows else None,
    )


def _resume(rows: list[TokenRow]) -> Resume:
    known = all(row.token_ids or not row.text for row in rows)
    ids = tuple(token_id for row in rows for token_id in row.token_ids) if known else ()
    return Resume(last_seq=rows[-1].seq, text="".join(row.text for row in rows), token_ids=ids)


def _row(event: SseEvent, *, seq: int) -> TokenRow:
    token = _token_decoder.decode(event.data)
    data: bytes | None = None
    media_type: str | None = None
    if token.media_type:
        data, media_type = base64.b64decode(token.base64, validate=True), token.media_type
    elif token.value is not None:
        value: Any = token.value
        data, media_type = msgspec.json.encode(value), JSON_TYPE
    return TokenRow(seq, token.text, event.token_ids, data, media_type)
