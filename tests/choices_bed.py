"""The two sides of an answer that is made of several: its client's and the relay's."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request
from swarmesh.queen.choices import ChoiceExchange, Choices
from swarmesh.wire.http1 import ChunkedFramer, ResponseHead, parse_response_head
from swarmesh.wire.openai import ChatRequest, CompletionRequest
from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader

R = TypeVar("R", ChatRequest, CompletionRequest)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"X-Engine: a\r\nx-swarmesh-rustbee: rustbee-%d\r\nx-swarmesh-attempts: 1\r\n\r\n"
)
LAST = b"0\r\n\r\n"


def request_of(kind: type[R], fields: dict[str, Any]) -> R:
    return msgspec.json.decode(json.dumps(fields), type=kind)


class Client:
    """The client's side of a real exchange, and the relay's side of its choices."""

    def __init__(self, count: int, *, http_1_0: bool = False, **fields: Any) -> None:
        self.sent = b""
        self.kept_alive: bool | None = None
        request = Request("POST", b"/v1/chat/completions", [])
        request.http_1_0 = http_1_0
        self.exchange = Exchange(request, self)  # type: ignore[arg-type]
        asked = request_of(ChatRequest, {"messages": [], "n": count, **fields})
        self.choices = Choices(self.exchange, asked)
        self.parts: list[ChoiceExchange] = []
        self.requests: list[ChatRequest] = []
        self.aborted: list[int] = []
        self.paused: list[tuple[int, bool]] = []

    def write(self, data: bytes) -> None:
        assert self.kept_alive is None, "nothing is written after the end"
        self.sent += data

    def exchange_finished(self, *, keep_alive: bool) -> None:
        assert self.kept_alive is None, "an answer ends once"
        self.kept_alive = keep_alive

    def run(self, part: Exchange, request: ChatRequest) -> None:
        """What the relay does with a choice: listen to its client."""
        assert isinstance(part, ChoiceExchange)
        number = len(self.parts)
        self.parts.append(part)
        self.requests.append(request)
        part.on_abort = lambda: self.aborted.append(number)
        part.on_pause = lambda paused: self.paused.append((number, paused))

    @property
    def head(self) -> ResponseHead:
        return parse_response_head(self.sent.partition(b"\r\n\r\n")[0])

    @property
    def body(self) -> bytes:
        data = self.sent.partition(b"\r\n\r\n")[2]
        if not self.head.chunked:
            return data
        payload: list[bytes] = []
        ended = ChunkedFramer().feed(data, payload)
        assert (ended == len(data)) if self.kept_alive is not None else (ended == -1)
        return b"".join(payload)

    @property
    def events(self) -> list[SseEvent]:
        return SseReader().feed(self.body)

    def texts(self) -> list[tuple[int | None, int, str]]:
        """Event number, choice and text of each chunk that has one."""
        chunks = [(event.seq, json.loads(event.data)) for event in self.events if event.data != DONE_MARK]
        return [
            (seq, entry["index"], entry["delta"]["content"])
            for seq, chunk in chunks
            for entry in chunk.get("choices", [])
            if "content" in entry["delta"]
        ]


def begun(count: int = 3, *, stream: bool = True, **fields: Any) -> Client:
    client = Client(count, stream=stream, **fields)
    client.choices.begin(client.run)
    return client


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunk(text: str, name: str = "c-0", *, finish_reason: str | None = None, **more: Any) -> bytes:
    """One event as a rustbee sends it: numbered, with token ids."""
    entry = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    data = {"id": name, "object": "chat.completion.chunk", "created": 7, "model": f"m-{name}", "choices": [entry]}
    return framed(b"id: 9\n: t 1,2\ndata: %s\n\n" % json.dumps({**data, **more}).encode())


def end(part: ChoiceExchange, before: bytes = b"") -> None:
    part.write(before + framed(b"data: [DONE]\n\n") + LAST)
    part.finish()


def answer(part: ChoiceExchange, body: Any, *, status: bytes = b"200 OK", headers: bytes = b"") -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    part.write(b"HTTP/1.1 %s\r\n%scontent-type: application/json\r\n" % (status, headers))
    part.write(b"x-swarmesh-rustbee: rustbee-%d\r\ncontent-length: %d\r\n\r\n" % (part.index, len(data)) + data)
    part.finish()


def completion(text: str, *, usage: tuple[int, int] | None = (3, 2), index: int = 0) -> dict[str, Any]:
    whole: dict[str, Any] = {"id": f"c-{text}", "created": 7, "model": "m"}
    whole["choices"] = [{"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    if usage is not None:
        whole["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return whole
