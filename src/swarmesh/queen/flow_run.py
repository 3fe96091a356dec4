"""Carries one nectarflow from a worker's stream into its flow: a `Runner` to the driver, a `Sink` to the connection."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import msgspec

from swarmesh.core.commands import StartStream
from swarmesh.core.errors import EngineError, SwarmeshError, TaskRefusedError
from swarmesh.core.events import StreamBroke, StreamEnded
from swarmesh.core.ids import Blame
from swarmesh.core.routing import Decision
from swarmesh.net.upstream import UpstreamCall
from swarmesh.queen.driver import Driver
from swarmesh.queen.flow import JSON_TYPE, Flow
from swarmesh.queen.links import Dialect, WorkerLink
from swarmesh.queen.openai_stream import OpenAiStream, chat_body
from swarmesh.queen.refusal import Refusal
from swarmesh.store.records import TokenRow
from swarmesh.wire.flow import DoneData, ErrorData, ExecuteRequest, Submission, TokenData
from swarmesh.wire.http1 import Framer, ResponseHead
from swarmesh.wire.sse import SseEvent, SseReader

_token_decoder = msgspec.json.Decoder(TokenData)
_done_decoder = msgspec.json.Decoder(DoneData)
_error_decoder = msgspec.json.Decoder(ErrorData)


class FlowKeeper(Protocol):
    """Who keeps what a run brings (`swarmesh.queen.flows.Flows`)."""

    def decided(self, flow: Flow, decision: Decision) -> None:
        """Where it goes, and why."""

    def produced(self, flow: Flow, row: TokenRow) -> None:
        """A piece of the answer."""

    def ended(self, flow: Flow, done: DoneData) -> None:
        """The answer is whole."""

    def failed(self, flow: Flow, error: SwarmeshError) -> None:
        """There will be no whole answer."""


class FlowRun:
    """One durable task on its way through workers.

    Attributes:
        error: Why it failed, once it has.
    """

    def __init__(self, keeper: FlowKeeper, driver: Driver, flow: Flow, submission: Submission) -> None:
        self._keeper = keeper
        self._driver = driver
        self._flow = flow
        self._submission = submission
        self.error: SwarmeshError | None = None
        self._attempt = 0
        self._worker_id = ""
        self._call: UpstreamCall | None = None
        self._framer: Framer | None = None
        self._reader = SseReader()
        self._foreign: OpenAiStream | None = None
        self._refusal: Refusal | None = None

    # Runner

    def start(self, command: StartStream, link: WorkerLink) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._keeper.decided(self._flow, command.decision)
        self._attempt = command.attempt
        self._worker_id = link.worker_id
        self._reader = SseReader()
        self._refusal = None
        try:
            target, body = self._request(command, link)
        except TaskRefusedError as error:
            self._broke(Blame.TASK, error.code, error.message)
            return
        self._call = link.post(target, body, command.task_id, command.attempt, self)

    def stop(self) -> None:
        """See `swarmesh.queen.driver.Runner`; the status was recorded by the command before."""
        self._close()

    def break_off(self, code: str, message: str) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._broke(Blame.WORKER, code, message)

    def fail(self, error: SwarmeshError) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close()
        self.error = error
        self._keeper.failed(self._flow, error)

    # Sink

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        if head is not None:
            self._framer = head.framer()
            self._refusal = Refusal(head) if head.status >= 400 else None
        if self._refusal is not None:
            self._refusal.feed(data)
            if ended or self._refusal.is_full:
                self._refused(self._refusal)
            return
        try:
            self._read(data)
        except (SwarmeshError, msgspec.DecodeError, ValueError) as error:
            self._broke(Blame.WORKER, "garbage", f"{self._worker_id} sent what cannot be read: {error}")
            return
        if ended and self._call is not None:
            self._broke(Blame.WORKER, "stream_truncated", f"{self._worker_id} ended the stream without its end mark")

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._broke(Blame.WORKER, "stream_broke", reason)

    # inside

    def _request(self, command: StartStream, link: WorkerLink) -> tuple[bytes, bytes]:
        if link.dialect is Dialect.AGENT:
            self._foreign = None
            return b"/execute", msgspec.json.encode(_execute_request(self._submission))
        self._foreign = OpenAiStream(command.task_id)
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
            self._keeper.produced(self._flow, _row(event, seq=len(self._flow.rows) + 1))
        elif event.name == "done":
            self._done(_done_decoder.decode(event.data))
        elif event.name == "error":
            error = _error_decoder.decode(event.data).error
            blame = Blame.TASK if error.type == "invalid_request_error" else Blame.WORKER
            self._broke(blame, error.code, error.message)

    def _done(self, done: DoneData) -> None:
        # The worker may take its time to close the stream; the answer is whole all the same.
        self._call = None
        self._driver.forget(self._flow.task_id)
        self._keeper.ended(self._flow, done)
        self._driver.post(StreamEnded(self._flow.task_id, self._attempt, done.usage.completion_tokens))

    def _refused(self, refusal: Refusal) -> None:
        if refusal.is_workers_fault:
            words = f"{self._worker_id} answered {refusal.status}: {refusal.error().message}"
            self._broke(Blame.WORKER, EngineError.code, words, final=refusal.is_final)
        else:
            error = refusal.error()
            self._broke(Blame.TASK, error.code, error.message)

    def _broke(self, blame: Blame, code: str, message: str, *, final: bool = False) -> None:
        self._close()
        shown = bool(self._flow.rows)
        self._driver.post(StreamBroke(self._flow.task_id, self._attempt, blame, shown, code, message, final))

    def _close(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


def _execute_request(submission: Submission) -> ExecuteRequest:
    return ExecuteRequest(
        prompt=submission.prompt,
        messages=submission.messages,
        input=submission.input,
        max_tokens=submission.max_tokens,
        temperature=submission.temperature,
        top_p=submission.top_p,
        seed=submission.seed,
        stop=submission.stop,
    )


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
