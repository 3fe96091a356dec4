"""Several answers to one request (``n`` above 1): a task of its own for each below, one answer above.

So each choice has its own worker, its own seed and its own failover. What the relay writes for one choice goes to a
`ChoiceExchange` instead of the client's exchange; `Choices` reads it there and writes the one answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET

from swarmesh.core.errors import EngineError, RustbeeLostError, SwarmeshError
from swarmesh.net.event_stream import EVENT_STREAM_HEADERS, EventStream
from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request
from swarmesh.queen.answer_exchange import FRAMING, UNREADABLE, AnswerExchange, headers_without, unreadable
from swarmesh.wire.errors import envelope, remote_error
from swarmesh.wire.flow import Usage
from swarmesh.wire.http1 import ResponseHead
from swarmesh.wire.openai import Sampling
from swarmesh.wire.sse import DONE_MARK, PING, WAITING, SseEvent, render

PING_INTERVAL_S: Final = 1.0
"""Every choice's worker pings; the client hears at most one of them in this time, and none while there is text."""
COLLECTED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of answers that are collected whole, all choices together."""
FRESH_SEEDS: Final = 2**31
"""Seeds are drawn below this, where every engine takes them."""

_IDENTITY: Final = ("id", "object", "created", "model", "system_fingerprint")
_STREAM_OWN: Final = FRAMING | {name for name, _ in EVENT_STREAM_HEADERS}

R = TypeVar("R", bound=Sampling)

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class Choices(Generic[R]):
    """The answer to a request with ``n`` above 1, made of the answers to its choices.

    Where one choice fails, the whole answer is its error and the others are cancelled: an answer that lacks a choice
    would be taken for whole.

    Attributes:
        paused: The client reads too slowly.
    """

    def __init__(self, exchange: Exchange, request: R) -> None:
        self.paused = False
        self._exchange = exchange
        self._request = request
        self._tells_usage = request.wants_usage()
        self._parts = [ChoiceExchange(self, exchange.request, index) for index in range(request.choices())]
        self._first_head: ResponseHead | None = None
        self._stream: EventStream | None = None
        self._identity: dict[str, Any] | None = None
        self._seq = 0
        self._sent_at_s = 0.0
        self._collected_bytes = 0
        self._loop = asyncio.get_running_loop()
        exchange.on_abort = self._client_left
        exchange.on_pause = self._client_slow

    def begin(self, run: Callable[[Exchange, R], None]) -> None:
        """Hand the exchange and the request of each choice to ``run``; none any more once one of them has failed.

        ``run`` may raise a `SwarmeshError`, which becomes the answer.
        """
        for part, request in zip(self._parts, single_requests(self._request), strict=True):
            if part.finished:
                return
            try:
                run(part, request)
            except SwarmeshError as error:
                part.fail(error)

    # what the exchanges of the choices report

    def began(self, part: ChoiceExchange, head: ResponseHead) -> None:
        """A choice's head is there; the first that is no refusal gives the whole answer its headers."""
        if self._first_head is None and head.status < 400:
            self._first_head = head
        if self._stream is None and part.is_streamed:
            self._stream = EventStream(self._exchange, headers_without(_STREAM_OWN, head))

    def received(self, part: ChoiceExchange, payload: bytes) -> None:
        """Bytes of a choice's body, without their framing.

        Raises:
            EngineError: They are more than is taken.
            msgspec.DecodeError: They are no chunks.
        """
        if self._stream is not None and part.is_streamed:
            self._pass_on(self._stream, part, payload)
            return
        self._collected_bytes += len(payload)
        if self._collected_bytes > COLLECTED_BYTES_MAX:
            raise EngineError(f"the answers are more than {COLLECTED_BYTES_MAX} bytes")
        part.body += payload

    def ended(self, part: ChoiceExchange) -> None:
        """A choice is finished; with the last of them the whole answer is."""
        if part.head is None or not part.whole:
            self.fail(RustbeeLostError(f"the answer of choice {part.index} was cut short"), part)
        elif part.head.status >= 400:
            self._refused(part, part.head)
        elif len({other.is_streamed for other in self._parts if other.finished}) > 1:
            self.fail(EngineError("some choices were answered with a stream and some were not"), part)
        elif all(other.finished for other in self._parts):
            self._whole()

    def fail(self, error: SwarmeshError, part: ChoiceExchange) -> None:
        """One choice has failed, and so has the answer."""
        if self._stream is not None:
            self._end_stream(self._stream, envelope(error), part)
            return
        self._exchange.fail(error, part.decision_headers())
        self._over(part)

    # inside

    def _pass_on(self, stream: EventStream, part: ChoiceExchange, payload: bytes) -> None:
        events: list[bytes] = []
        for event in part.events.feed(payload):
            if event.data == DONE_MARK:
                continue  # The client gets one mark, when all choices are whole.
            chunk = _decoder.decode(event.data)
            if chunk.get("error") is not None:
                self._send(stream, b"".join(events))
                self._end_stream(stream, msgspec.json.encode(chunk), part)
                return
            if self._is_shown(part, chunk):
                events.append(self._event(msgspec.json.encode(self._identified(chunk))))
        if not events and payload and self._loop.time() - self._sent_at_s >= PING_INTERVAL_S:
            events.append(payload if payload.startswith(WAITING) else PING)  # Which is a comment of our own, whole.
        self._send(stream, b"".join(events))

    def _is_shown(self, part: ChoiceExchange, chunk: dict[str, Any]) -> bool:
        # A chunk without a choice is there for its usage, which is added up and told at the end.
        usage = chunk.pop("usage", None)
        if usage is not None:
            part.usage = _checked(usage)
        chunk["choices"] = entries = part.with_index(chunk.get("choices") or [], len(self._parts))
        return bool(entries)

    def _identified(self, chunk: dict[str, Any]) -> dict[str, Any]:
        # To a client all chunks belong to one answer: that of the first.
        if self._identity is None:
            self._identity = {name: chunk[name] for name in _IDENTITY if name in chunk}
        return self._identity | {name: value for name, value in chunk.items() if name not in _IDENTITY}

    def _event(self, data: bytes) -> bytes:
        self._seq += 1
        return render(SseEvent(data, seq=self._seq))

    def _send(self, stream: EventStream, events: bytes) -> None:
        if events:
            self._sent_at_s = self._loop.time()
            stream.send(events)

    def _whole(self) -> None:
        if self._stream is not None:
            self._send(self._stream, self._last_events())
            self._stream.end()
        else:
            self._respond_whole()
        self._over()

    def _last_events(self) -> bytes:
        usage = merged_usage([part.usage for part in self._parts]) if self._tells_usage else None
        events = b""
        if usage is not None:
            events = self._event(msgspec.json.encode(self._identified({"choices": [], "usage": usage})))
        return events + self._event(DONE_MARK)

    def _respond_whole(self) -> None:
        assert self._first_head is not None, "whole answers had heads"
        try:
            body = self._merged()
        except UNREADABLE as error:
            self._exchange.fail(unreadable(error))
        else:
            self._exchange.respond(200, msgspec.json.encode(body), headers_without(FRAMING, self._first_head))

    def _merged(self) -> dict[str, Any]:
        answers = [_decoder.decode(part.body) for part in self._parts]
        entries: list[dict[str, Any]] = []
        for part, answer in zip(self._parts, answers, strict=True):
            entries += part.with_index(answer.get("choices") or [], len(self._parts))
            told = answer.pop("usage", None)
            part.usage = _checked(told) if told is not None else None
        merged = answers[0] | {"choices": sorted(entries, key=lambda entry: int(entry["index"]))}
        usage = merged_usage([part.usage for part in self._parts])
        return merged | {"usage": usage} if usage is not None else merged

    def _refused(self, part: ChoiceExchange, head: ResponseHead) -> None:
        body = bytes(part.body)
        if self._stream is not None:
            self._end_stream(self._stream, envelope(remote_error(head.status, body)), part)
            return
        self._exchange.respond(head.status, body, headers_without(FRAMING, head))
        self._over(part)

    def _end_stream(self, stream: EventStream, error: bytes, part: ChoiceExchange) -> None:
        stream.send(b"data: %s\n\n" % error)
        stream.end()
        self._over(part)

    def _over(self, failed: ChoiceExchange | None = None) -> None:
        self._exchange.on_abort = self._exchange.on_pause = None
        if failed is not None:
            # Its relay is in the middle of a call of ours; cancelled under its hands it would have to expect that.
            failed.finished = True
            self._loop.call_soon(failed.dismiss)
        for part in self._parts:
            part.aborted()

    def _client_left(self) -> None:
        for part in self._parts:
            part.aborted()

    def _client_slow(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        self.paused = paused
        for part in self._parts:
            part.writing_paused(paused)


class ChoiceExchange(AnswerExchange):
    """The exchange of one choice.

    Attributes:
        index: Which choice.
        usage: What its engine has told.
    """

    __slots__ = ("index", "usage")

    def __init__(self, choices: Choices[Any], request: Request, index: int) -> None:
        super().__init__(choices, request)
        self.index = index
        self.usage: dict[str, Any] | None = None

    def with_index(self, entries: object, count: int) -> list[dict[str, Any]]:
        """The choices of an answer as choices of the whole; a list of prompts has ``count`` of them for each.

        Raises:
            msgspec.ValidationError: They are no list of objects.
        """
        numbered = msgspec.convert(entries, list[dict[str, Any]])
        for entry in numbered:
            entry["index"] = msgspec.convert(entry.get("index", 0), int) * count + self.index
        return numbered


def single_requests(request: R) -> list[R]:
    """The request once for each of its choices, without ``n`` and with a seed of its own, the given one first.

    A choice has a seed even where none was given, so that another worker can begin it again and come to the same text.
    """
    count = request.choices()
    if isinstance(request.seed, int):
        seeds = [_wrapped(request.seed + index) for index in range(count)]
    else:
        seeds = [secrets.randbelow(FRESH_SEEDS) for _ in range(count)]
    return [msgspec.structs.replace(request, n=UNSET, seed=seed) for seed in seeds]


def merged_usage(told: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The usage of all choices: they share one prompt. None when one of them told nothing: half a sum is wrong."""
    known = [usage for usage in told if usage is not None]
    if len(known) < len(told):
        return None
    prompt = known[0]["prompt_tokens"]
    completion = sum(usage["completion_tokens"] for usage in known)
    shared = {name: value for name, value in known[0].items() if not name.startswith("completion_tokens_")}
    return shared | {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _checked(usage: object) -> dict[str, Any]:
    counts = msgspec.structs.asdict(msgspec.convert(usage, Usage))
    return msgspec.convert(usage, dict[str, Any]) | counts


def _wrapped(seed: int) -> int:
    return (seed + 2**63) % 2**64 - 2**63
