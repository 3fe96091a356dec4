"""An OpenAI-compatible server, and an agent, over a real socket; the test decides each answer, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer
from swarmesh.wire.sse import PING

SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\nx-engine: scripted\r\n\r\n"
)
WAIT_S = 15.0


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def delta(text: str, finish_reason: str | None = None) -> bytes:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: %s\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


def numbered(seq: int, data: dict[str, Any] | bytes, *, ids: tuple[int, ...] = (), name: str = "") -> bytes:
    """One event as an agent sends it."""
    told = b": t %s\n" % ",".join(map(str, ids)).encode() if ids else b""
    event = b"event: %s\n" % name.encode() if name else b""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return b"id: %d\n%s%sdata: %s\n\n" % (seq, told, event, body)


def chat_chunk(
    seq: int, text: str, *ids: int, first: bool = False, finish: str | None = None, **envelope: Any
) -> bytes:
    """A chunk of a chat as an agent sends it."""
    delta = {**({"role": "assistant"} if first else {}), **({} if finish else {"content": text})}
    told = {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": "m", "system_fingerprint": "fp"}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return numbered(seq, {**told, **envelope, "choices": [choice]}, ids=ids)


def usage_chunk(seq: int, prompt: int, completion: int, **envelope: Any) -> bytes:
    """The chunk with the usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    told = {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": "m", "system_fingerprint": "fp"}
    return numbered(seq, {**told, **envelope, "choices": [], "usage": usage})


def end_mark(seq: int) -> bytes:
    """The end of a stream of OpenAI's."""
    return numbered(seq, b"[DONE]")


def token(seq: int, text: str, *ids: int) -> bytes:
    """A nectarflow's token."""
    return numbered(seq, {"text": text}, ids=ids, name="token")


def done(seq: int, job_id: str, prompt: int, completion: int) -> bytes:
    """A nectarflow's end."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return numbered(seq, {"job_id": job_id, "finish_reason": "stop", "usage": usage}, name="done")


def completion(text: str = "hello") -> dict[str, Any]:
    """A chat answer in one piece."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c-1", "object": "chat.completion", "choices": [choice]}


class Call:
    """One request that reached the worker, and how to answer it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.method = exchange.request.method
        self.path = exchange.request.path.decode()
        self.query = exchange.request.query.decode()
        self.headers = {name.decode(): value.decode() for name, value in exchange.request.headers}
        self.body: dict[str, Any] = json.loads(exchange.request.body or b"{}")
        self.gone = asyncio.Event()
        """Set when the queen closes the connection before the answer is whole."""
        exchange.on_abort = self.gone.set

    @property
    def resume(self) -> dict[str, Any] | None:
        """The resume point it came with."""
        found: dict[str, Any] | None = self.body.get("swarmesh_resume") or self.body.get("resume")
        return found

    def events(self, *events: bytes) -> None:
        """Events as they are, all in one chunk; the head before the first."""
        if not self.exchange.started:
            self.raw(SSE_HEAD)
        if events:
            self.raw(chunk(b"".join(events)))

    def last(self, *events: bytes) -> None:
        """Events, and the end of the answer."""
        self.events(*events)
        self.raw(b"0\r\n\r\n")
        self.exchange.finish()

    def json(self, status: int, body: Any) -> None:
        self.exchange.respond_json(status, json.dumps(body).encode())

    def raw(self, data: bytes) -> None:
        """Bytes as they are, head included."""
        self.exchange.write(data)

    def tokens(self, *texts: str) -> None:
        """A chat stream's head at the first call, then one event for each text."""
        if not self.exchange.started:
            self.raw(SSE_HEAD)
        for text in texts:
            self.raw(chunk(delta(text)))

    def end(self) -> None:
        """The stream's regular end."""
        self.raw(chunk(delta("", "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        self.exchange.finish()

    def crash(self) -> None:
        """Tell that the engine crashed, and break off, as an agent does."""
        self.raw(chunk(b": broken engine_crashed\n"))
        self.cut()

    def cut(self) -> None:
        """Close the connection, whatever was sent."""
        self.exchange.finish(keep_alive=False)

    async def wait_gone(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.gone.wait()


Behaviour = Callable[[Call], None]


def answers_at_once(call: Call) -> None:
    """The default: a short answer, streamed when it is asked to be."""
    if call.body.get("stream"):
        call.tokens("hel", "lo")
        call.end()
    else:
        call.json(200, completion())


def holds(call: Call) -> None:
    """Keep the request until the test answers it."""


class ScriptedWorker:
    """See the module. ``calls`` holds the tasks that came, in order; probes are answered apart."""

    def __init__(self, models: list[str] | None = None) -> None:
        self.models = ["fake"] if models is None else models
        self.calls: list[Call] = []
        self.behaviour: Behaviour = answers_at_once
        self.probe_status = 200
        self.port = 0
        self._arrived = asyncio.Event()
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; the port stays the same when it is started again."""
        self._server = HttpServer(self._answer)
        await self._server.listen(host="127.0.0.1", port=self.port)
        self.port = self._server.port

    async def stop(self) -> None:
        """End like a process that is killed: connections break, the port is free."""
        assert self._server is not None
        await self._server.close()

    async def call(self, number: int = 0) -> Call:
        """The task that came as the n-th, waiting for it."""
        async with asyncio.timeout(WAIT_S):
            while len(self.calls) <= number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.calls[number]

    def _answer(self, exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            models = [{"id": model, "object": "model"} for model in self.models]
            known = exchange.request.path == b"/v1/models"
            body = {"object": "list", "data": models} if known and self.probe_status == 200 else {}
            exchange.respond_json(self.probe_status if known else 404, json.dumps(body).encode())
            return
        self._take(exchange)

    def _take(self, exchange: Exchange) -> None:
        call = Call(exchange)
        self.calls.append(call)
        self._arrived.set()
        self.behaviour(call)


class ScriptedAgent(ScriptedWorker):
    """A worker that speaks as our agents do. Every stream that is open is pinged while ``pings`` is set.

    Attributes:
        watchers: Open ``GET /watch``; while ``mute`` is set they are opened and nothing is sent on them.
        deleted: Tasks that it was asked to drop, with the attempt.
    """

    PING_S = 0.02

    def __init__(self, worker_id: str) -> None:
        super().__init__()
        self.worker_id = worker_id
        self.watchers: list[Exchange] = []
        self.deleted: list[tuple[str, str]] = []
        self.mute = False
        self.pings = False
        self._pinging: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        await super().start()
        self._pinging = asyncio.get_running_loop().call_later(self.PING_S, self._ping)

    async def stop(self) -> None:
        assert self._pinging is not None
        self._pinging.cancel()
        await super().stop()

    def _ping(self) -> None:
        self._pinging = asyncio.get_running_loop().call_later(self.PING_S, self._ping)
        streams = [call.exchange for call in self.calls if call.exchange.started] if self.pings else []
        for exchange in [*streams, *([] if self.mute else self.watchers)]:
            if not exchange.finished:
                exchange.write(chunk(PING))

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path == b"/watch":
            self.watchers.append(exchange)
            if not self.mute:
                exchange.write(SSE_HEAD)
        elif request.method == "DELETE":
            attempt = (request.header(b"x-swarmesh-attempt") or b"").decode()
            self.deleted.append((request.path.decode().rpartition("/")[2], attempt))
            exchange.respond_json(202, b"{}")
        else:
            self._take(exchange)


@asynccontextmanager
async def scripted_worker(models: list[str] | None = None) -> AsyncIterator[ScriptedWorker]:
    """A running worker that ends with the block."""
    worker = ScriptedWorker(models)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
