"""The data plane: OpenAI's routes, one client connection to one worker, bytes forwarded as they come (DESIGN 3)."""

from __future__ import annotations

import itertools
import secrets
from typing import Final

import msgspec

from swarmesh.core.commands import StartStream
from swarmesh.core.errors import SwarmeshError, TooManyStreamsError
from swarmesh.core.events import StreamBroke, StreamEnded, TaskCancelled, TaskSubmitted
from swarmesh.core.ids import Blame, Priority, TaskId
from swarmesh.net.exchange import Exchange
from swarmesh.net.upstream import UpstreamCall
from swarmesh.queen.driver import Driver
from swarmesh.queen.framing import Passage, passage_for
from swarmesh.queen.journal import Journal
from swarmesh.queen.keys import Identity
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.links import WorkerLink
from swarmesh.queen.refusal import Refusal
from swarmesh.wire.body import decode_body
from swarmesh.wire.errors import envelope
from swarmesh.wire.http1 import Headers, ResponseHead
from swarmesh.wire.openai import ChatRequest, CompletionRequest, EmbeddingRequest, OpenAiRequest

RETRY_AFTER_S: Final = 5
DECISION_HEADERS: Final = (b"x-swarmesh-rustbee", b"x-swarmesh-attempts", b"x-swarmesh-queue-ms")
DECISION_LINES: Final = b"%s: %%s\r\n%s: %%d\r\n%s: %%d\r\n" % DECISION_HEADERS
"""The same as one template: it is filled once per answer."""

_encoder = msgspec.json.Encoder()


class Relay:
    """Takes requests of the hot routes and follows each to its end.

    Attributes:
        active: Answers that are queued or running.
    """

    def __init__(self, driver: Driver, models: KnownModels, *, streams_max: int) -> None:
        self.active = 0
        self._driver = driver
        self._models = models
        self._streams_max = streams_max
        self._prefix = secrets.token_hex(4)
        self._serial = itertools.count(1)
        self._decoders: dict[bytes, msgspec.json.Decoder[OpenAiRequest]] = {
            kind.target: msgspec.json.Decoder(kind) for kind in (ChatRequest, CompletionRequest, EmbeddingRequest)
        }

    def serves(self, target: bytes) -> bool:
        """Whether this path is one of the hot routes."""
        return target in self._decoders

    def take(self, exchange: Exchange, identity: Identity) -> None:
        """Answer one request; every mistake in it becomes an error answer."""
        target = exchange.request.path
        try:
            if self.active >= self._streams_max:
                raise TooManyStreamsError(
                    f"{self.active} answers are relayed already, the most there may be", retry_after_s=RETRY_AFTER_S
                )
            request = decode_body(self._decoders[target], exchange.request.body)
        except SwarmeshError as error:
            exchange.fail(error)
            return
        priority = request.priority or Priority.MEDIUM
        request.priority = msgspec.UNSET
        exchange.request.body = b""  # The decoded form is all that is needed from here on.
        model, known = self._models.resolve(request.model)
        task_id = TaskId(f"{self._prefix}-{next(self._serial)}")
        event = TaskSubmitted(
            task_id=task_id,
            model=model,
            priority=priority,
            key_id=identity.key_id,
            prompt_chars=request.prompt_chars(),
            max_tokens=request.bound_tokens() * request.choices(),
            model_known=known,
        )
        self.active += 1
        self._driver.run(task_id, RelayedAnswer(self, self._driver, exchange, task_id, request), event)


class RelayedAnswer:
    """One task of the relay: a `Runner` to the driver, a `Sink` to the upstream connection."""

    __slots__ = (
        "_attempt",
        "_call",
        "_driver",
        "_exchange",
        "_journal",
        "_link",
        "_over",
        "_passage",
        "_queue_ms",
        "_refusal",
        "_relay",
        "_request",
        "_task_id",
    )

    def __init__(
        self, relay: Relay, driver: Driver, exchange: Exchange, task_id: TaskId, request: OpenAiRequest
    ) -> None:
        self._relay = relay
        self._driver = driver
        self._exchange = exchange
        self._task_id = task_id
        self._request = request
        self._journal: Journal | None = None
        self._link: WorkerLink | None = None
        self._call: UpstreamCall | None = None
        self._passage: Passage | None = None
        self._refusal: Refusal | None = None
        self._attempt = 0
        self._queue_ms = 0
        self._over = False
        exchange.on_abort = self._client_left
        exchange.on_pause = self._client_slow

    # Runner

    def start(self, command: StartStream, link: WorkerLink) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._attempt = command.attempt
        self._queue_ms = command.queue_ms
        self._link = link
        self._refusal = None
        self._journal = Journal()
        self._request.model = link.remote_model or command.model
        body = _encoder.encode(self._request)
        self._call = link.post(self._request.target, body, self._task_id, command.attempt, self)

    def stop(self) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        self._finished()

    def break_off(self, code: str, message: str) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        self._report_broken(code, message)

    def fail(self, error: SwarmeshError) -> None:
        """See `swarmesh.queen.driver.Runner`."""
        self._close_upstream()
        if not self._exchange.finished:
            if self._exchange.started:
                self._end_with(error)
            else:
                self._exchange.fail(error, self._decision_headers())
        self._finished()

    # Sink

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        if head is not None:
            if head.status >= 400:
                self._refusal = Refusal(head)
            else:
                self._passage = passage_for(head, self._exchange.request)
                # One write for head and body: a system call each is most of what a request costs.
                first = self._passage.head(head, DECISION_LINES % self._decision())
                self._exchange.write(first + self._passage.forward(data, ended=ended))
        elif self._passage is not None:
            self._exchange.write(self._passage.forward(data, ended=ended))
        if self._refusal is not None:
            self._refused(self._refusal, data, ended=ended)
        elif ended:
            self._call = None
            self._whole()
        elif self._journal is not None:
            self._journal.append(data)

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._call = None
        self._report_broken("stream_broke", reason)

    # inside

    def _whole(self) -> None:
        assert self._passage is not None, "a whole answer had a head"
        self._exchange.finish(keep_alive=self._passage.keeps_alive)
        self._driver.forget(self._task_id)
        self._finished()
        self._driver.post(StreamEnded(self._task_id, self._attempt))

    def _refused(self, refusal: Refusal, data: bytes, *, ended: bool) -> None:
        refusal.feed(data)
        if ended:
            self._call = None
        elif not refusal.is_full:
            return
        self._close_upstream()
        self._refusal = None
        if refusal.is_workers_fault:
            words = f"{self._worker_name()} answered {refusal.status}: {refusal.error().message}"
            self._report_broken("engine_unavailable", words, final=refusal.is_final)
            return
        self._driver.forget(self._task_id)
        self._exchange.fail(refusal.error(), self._decision_headers())
        self._finished()
        self._driver.post(StreamEnded(self._task_id, self._attempt))

    def _report_broken(self, code: str, message: str, *, final: bool = False) -> None:
        shown = self._exchange.started
        self._driver.post(StreamBroke(self._task_id, self._attempt, Blame.WORKER, shown, code, message, final))

    def _end_with(self, error: SwarmeshError) -> None:
        # A stream of events can say why it ends; anything else is cut, which no client takes for whole.
        if self._passage is not None and self._passage.can_tell:
            self._exchange.write(self._passage.tell(b"data: " + envelope(error) + b"\n\n"))
            self._exchange.finish(keep_alive=self._passage.keeps_alive)
        else:
            self._exchange.finish(keep_alive=False)

    def _client_left(self) -> None:
        self._driver.post(TaskCancelled(self._task_id))

    def _client_slow(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        if self._call is not None:
            self._call.pause(paused)

    def _close_upstream(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _finished(self) -> None:
        if not self._over:
            self._over = True
            self._relay.active -= 1
            self._journal = None
            self._exchange.on_abort = self._exchange.on_pause = None

    def _worker_name(self) -> str:
        return self._link.worker_id if self._link is not None else "no rustbee"

    def _decision(self) -> tuple[bytes, int, int]:
        worker = self._link.id_header if self._link is not None else b""
        return worker, self._attempt, self._queue_ms

    def _decision_headers(self) -> Headers:
        worker, attempts, queue_ms = self._decision()
        values = (worker, b"%d" % attempts, b"%d" % queue_ms)
        return list(zip(DECISION_HEADERS, values, strict=True))
