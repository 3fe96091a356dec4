"""One answer of the relay on its way to the client, through as many workers as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET

from swarmesh.core.commands import BreakStream, StartStream
from swarmesh.core.errors import EngineError, ResumeDivergedError, SwarmeshError
from swarmesh.core.events import StreamBegan, StreamBroke, StreamProgressed, TaskCancelled, TaskSubmitted
from swarmesh.core.ids import Blame
from swarmesh.net.exchange import Exchange
from swarmesh.net.upstream import UpstreamCall
from swarmesh.queen.answer_report import OPENING_BYTES, AnswerReport
from swarmesh.queen.continuation import DONE_EVENT, Continuation, draw_seed, is_all_shown, read_shown
from swarmesh.queen.decision_headers import decision_headers, decision_lines
from swarmesh.queen.driver import Driver
from swarmesh.queen.early_stream import early_stream, late_decision
from swarmesh.queen.framing import Passage, Through, passage_for
from swarmesh.queen.journal import Journal
from swarmesh.queen.links import Dialect, WorkerLink
from swarmesh.queen.refusal import Refusal, told_code
from swarmesh.queen.start_progress import start_progress
from swarmesh.queen.vigil import CLIENT_PING_TICKS, PROGRESS_EVENTS, SILENT_TICKS_MAX
from swarmesh.queen.why_waiting import WAITING
from swarmesh.wire.errors import envelope
from swarmesh.wire.http1 import ResponseHead
from swarmesh.wire.openai import EmbeddingRequest, OpenAiRequest
from swarmesh.wire.sse import DONE_MARK, PING, waiting_line
from swarmesh.wire.transcript import Replay, Transcript

WHOLE_BYTES_MAX: Final = 1024 * 1024
"""An answer that is no stream is kept back up to this until it is whole, so that another worker can start it over."""

_encoder = msgspec.json.Encoder()
_AGENT: Final = Dialect.AGENT
_NOTHING_SHOWN: Final = Journal()  # One for all of which nothing was shown: most come whole and need none of their own.


class RelayedAnswer:
    """One task of the relay: a `Runner` to the driver, a `Sink` to the upstream connection, watched for silence.

    Args:
        on_over: Told once, when the answer is over.
        tells_waiting: The client reads a stream, and may be told in it what it waits for before there is a worker.
    """

    __slots__ = (
        "_attempt",
        "_call",
        "_driver",
        "_exchange",
        "_is_early",
        "_journal",
        "_last",
        "_link",
        "_on_over",
        "_opening",
        "_over",
        "_passage",
        "_paused",
        "_pending",
        "_pinged",
        "_queue_ms",
        "_quiet_ticks",
        "_refusal",
        "_replay",
        "_report",
        "_request",
        "_task_id",
        "_tells_waiting",
        "_through",
        "_timed",
        "_unshown_ticks",
        "_watched_events",
        "submitted",
    )

    def __init__(
        self,
        on_over: Callable[[RelayedAnswer], None],
        driver: Driver,
        exchange: Exchange,
        submitted: TaskSubmitted,
        request: OpenAiRequest,
        *,
        tells_waiting: bool = False,
    ) -> None:
        self._on_over = on_over
        self._driver = driver
        self._exchange = exchange
        self.submitted = submitted
        self._task_id = submitted.task_id
        self._tells_waiting = tells_waiting
        self._request = request
        self._journal = _NOTHING_SHOWN
        self._link: WorkerLink | None = None
        self._call: UpstreamCall | None = None
        self._passage: Passage | None = None
        self._through: Through | None = None
        self._replay: Replay | None = None
        self._refusal: Refusal | None = None
        self._pending = self._last = self._opening = b""
        self._attempt = self._queue_ms = self._quiet_ticks = self._unshown_ticks = self._watched_events = 0
        self._paused = self._pinged = self._over = self._is_early = self._timed = False
        exchange.on_abort = self._client_left
        exchange.on_pause = self._client_slow

    # Runner

    def start(self, command: StartStream, link: WorkerLink) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._attempt, self._queue_ms, self._timed = command.attempt, command.queue_ms, command.timed
        self._link = link
        self._refusal = None
        self._report = AnswerReport()
        self._last = b""
        self._quiet_ticks = 0
        self._watched_events = PROGRESS_EVENTS if command.watched else 0
        self._pinged = link.dialect is _AGENT and self._request.streams()
        self._request.model = link.remote_model or command.model
        if self._exchange.started:
            if not self._prepared_to_go_on(link):
                return
        else:
            self._passage = None
        if self._pinged and not self._has_shown():
            draw_seed(self._request)
        request = self._request
        self._call = link.post(request.target, _encoder.encode(request), self._task_id, command.attempt, self)
        if self._paused:
            self._call.pause(True)

    def stop(self) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        self._finished()

    def preempt(self) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        self._drop_rest()

    def break_off(self, command: BreakStream) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        self._report_broken(command.code, command.message, blame=command.blame)

    def fail(self, error: SwarmeshError) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        if not self._exchange.finished:
            self._tell(error)
        self._finished()

    # Sink

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        if ended and head is not None and head.length >= 0 and head.status < 400 and self._passage is None:
            self._came_at_once(head, data)
            return
        self._quiet_ticks = 0
        before, self._last = self._last, data
        try:
            first = self._opened(head, data) if head is not None else b""
            if self._refusal is not None:
                self._refused(self._refusal, data, ended=ended)
                return
            assert self._through is not None, "a head comes before its body"
            whole = ended and (not self._is_events() or DONE_MARK in before + data)
            passed = self._through.forward(data, ended=whole)
        except SwarmeshError as error:
            self._unreadable(error)
            return
        self._pass_on(first, passed, ended=ended)
        if ended:
            self._call = None
            if whole:
                self._report.whole(self._opening, before, data, is_stream=self._is_events())
                self._whole()
            else:
                self._ended_unmarked()

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._call = None
        self._report_broken(told_code(self._last) or "stream_broke", reason)

    # Watched

    def tick(self) -> None:
        """See `swarmesh.queen.vigil.Watched`."""
        if self._paused:
            return
        self._quiet_ticks += 1
        self._unshown_ticks += 1
        if self._unshown_ticks % CLIENT_PING_TICKS == 0:
            self._comfort()
        if self._call is not None and self._pinged and self._quiet_ticks >= SILENT_TICKS_MAX:
            self._close_upstream()
            self._report_broken("stream_silent", f"{self._worker_name()} sent nothing, not even a sign of life")

    # inside

    def _came_at_once(self, head: ResponseHead, data: bytes) -> None:
        # As most answers do that are no stream: nothing has to be remembered between its parts.
        self._call = None
        self._passage = passage_for(head, self._exchange.request)
        self._exchange.write(self._passage.head(head, decision_lines(*self._decision())) + data)
        self._report.whole(data[:OPENING_BYTES], b"", data, is_stream=False)
        self._whole()

    def _opened(self, head: ResponseHead, data: bytes) -> bytes:
        if head.status >= 400:
            self._refusal = Refusal(head)
            return b""
        if self._passage is not None:
            self._through = Continuation(head, self._passage, self._replay)
            if self._has_shown():
                return b""
            self._opening = data[:OPENING_BYTES]
            return self._passage.events(late_decision(*self._decision()))
        self._opening = data[:OPENING_BYTES]
        self._through = self._passage = passage_for(head, self._exchange.request)
        return self._passage.head(head, decision_lines(*self._decision()))

    def _pass_on(self, first: bytes, passed: bytes, *, ended: bool) -> None:
        if passed:
            self._unshown_ticks = 0
        if self._is_events():
            # One write for head and body: a system call each is most of what a request costs.
            self._exchange.write(first + passed)
            if self._journal is _NOTHING_SHOWN:
                self._journal = Journal()
            self._journal.append(passed)
            if self._report.first_token_ms < 0 and self._report.passed(self._last) and self._timed and not ended:
                self._driver.post(StreamBegan(self._task_id, self._attempt))
            if self._watched_events and not ended:
                self._note_progress(passed.count(b"data: "))
            return
        if self._pending:
            first, self._pending = self._pending + first, b""
        if ended or self._exchange.started or len(first) + len(passed) > WHOLE_BYTES_MAX:
            self._exchange.write(first + passed)
        else:
            self._pending = first + passed

    def _note_progress(self, events: int) -> None:
        self._watched_events = max(0, self._watched_events - events)
        if not self._watched_events:
            self._driver.post(StreamProgressed(self._task_id, self._attempt))

    def _prepared_to_go_on(self, link: WorkerLink) -> bool:
        # The journal is read only here: until a worker breaks, what it holds is nobody's business.
        request = self._request
        assert not isinstance(request, EmbeddingRequest), "only streams are gone on with"
        shown = read_shown(self._passage, self._journal)
        if shown is None:
            words = "what the client was shown cannot be read"
            self._report_broken("stream_unreadable", words, blame=Blame.SWARM, resumable=False)
            return False
        if is_all_shown(shown, request):
            self._end_marked(shown)
            return False
        self._replay, request.resume = None, UNSET
        by_tokens = link.dialect is Dialect.AGENT and request.continues_by_tokens() and shown.is_plain
        if by_tokens and shown.choices and not shown.is_finished:
            request.resume = shown.resume()
        elif shown.last_seq:
            self._replay = Replay(shown)
        return True

    def _ended_unmarked(self) -> None:
        # Also how the stream of a server ends that was killed, where the end of the connection ends the answer.
        shown = read_shown(self._passage, self._journal) if self._journal.complete else None
        request = self._request
        if shown is not None and not isinstance(request, EmbeddingRequest) and is_all_shown(shown, request):
            self._end_marked(shown)
        else:
            words = f"{self._worker_name()} ended the stream without its end mark"
            self._report_broken(told_code(self._last) or "stream_truncated", words)

    def _end_marked(self, shown: Transcript) -> None:
        assert self._passage is not None, "what has started went through something"
        self._drop_rest()
        mark = b"" if shown.done or shown.failed else self._passage.events(DONE_EVENT)
        self._exchange.write(mark + self._passage.end())
        self._whole()

    def _whole(self) -> None:
        assert self._passage is not None, "a whole answer had a head"
        self._exchange.finish(keep_alive=self._passage.keeps_alive)
        self._over_with_worker()

    def _over_with_worker(self) -> None:
        self._finished()
        self._driver.ended(self._report.ended(self._task_id, self._attempt, self._journal), self._report.name)

    def _refused(self, refusal: Refusal, data: bytes, *, ended: bool) -> None:
        refusal.feed(data)
        if ended:
            self._call = None
        elif not refusal.is_full:
            return
        self._close_upstream()
        self._refusal = None
        # What one worker has begun with is not the client's mistake because another will not go on with it.
        if refusal.is_workers_fault or self._has_shown():
            words = f"{self._worker_name()} answered {refusal.status}: {refusal.error().message}"
            self._report_broken(refusal.code, words, final=refusal.is_final)
            return
        self._tell(error := refusal.error())
        self._driver.refused.add(self.submitted, error)
        self._over_with_worker()

    def _unreadable(self, error: SwarmeshError) -> None:
        self._close_upstream()
        if isinstance(error, ResumeDivergedError):
            # A third worker may agree with the first, but nothing says that it will before it has tried.
            self._end_with(error)
            self._over_with_worker()
        else:
            code = "garbage" if type(error) is EngineError else error.code
            self._report_broken(code, f"{self._worker_name()}: {error.message}")

    def _report_broken(
        self, code: str, message: str, *, blame: Blame = Blame.WORKER, resumable: bool = True, final: bool = False
    ) -> None:
        self._drop_rest()
        if self._exchange.started:
            resumable = resumable and self._is_events() and self._journal.complete and self._request.streams()
        self._driver.post(StreamBroke(self._task_id, self._attempt, blame, code, message, resumable, final))

    def _drop_rest(self) -> None:
        self._pending = b""
        if self._passage is not None:
            self._passage.drop_rest()

    def _tell(self, error: SwarmeshError) -> None:
        if self._exchange.started:
            self._end_with(error)
        else:
            self._exchange.fail(error, decision_headers(*self._decision()))

    def _end_with(self, error: SwarmeshError) -> None:
        # A stream of events can say why it ends; anything else is cut, which no client takes for whole.
        if self._passage is not None and self._is_events():
            event = b"data: " + envelope(error) + b"\n\n"
            self._exchange.write(self._passage.events(event) + self._passage.end())
            self._exchange.finish(keep_alive=self._passage.keeps_alive)
        else:
            self._exchange.finish(keep_alive=False)

    def _comfort(self) -> None:
        # For a stream that brings nothing new. One that waits for a start begins with that; a slot is free soon.
        waiting = start_progress(self._driver, self._task_id) if self._tells_waiting and self._call is None else None
        if waiting is not None and waiting.phase != WAITING and not self._exchange.started:
            self._passage, head = early_stream(self._exchange.request, self._task_id.encode())
            self._exchange.write(head)
            self._is_early = True
        if self._exchange.started and self._passage is not None and self._is_events():
            self._exchange.write(self._passage.events(PING if waiting is None else waiting_line(waiting.message)))

    def _has_shown(self) -> bool:
        # What it waited for is no part of an answer.
        return self._exchange.started and not (self._is_early and self._journal.is_empty)

    def _is_events(self) -> bool:
        return self._passage is not None and self._passage.is_events

    def _client_left(self) -> None:
        self._driver.post(TaskCancelled(self._task_id, self._journal.shown_tokens()))

    def _client_slow(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        self._paused = paused
        self._quiet_ticks = 0
        if self._call is not None:
            self._call.pause(paused)

    def _close_upstream(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _finished(self) -> None:
        if not self._over:
            self._over = True
            self._on_over(self)
            self._exchange.on_abort = self._exchange.on_pause = None

    def _worker_name(self) -> str:
        return self._link.worker_id if self._link is not None else "no rustbee"

    def _decision(self) -> tuple[bytes, int, int, bytes]:
        worker = self._link.id_header if self._link is not None else b""
        return worker, self._attempt, self._queue_ms, self._task_id.encode()
