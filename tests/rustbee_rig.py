"""A real agent process, and a little queen that writes down what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from swarmesh.config.home import Home, QueenFile, write_private
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.net.address import Address
from swarmesh.net.client import HttpClient
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer
from swarmesh.wire.spec import Backend, EngineKind, WorkerSpec
from swarmesh.wire.sse import SseEvent, SseReader

KEY = "rustbee.test.0123456789abcdef"
DEMO_GGUF = Path(__file__).parents[1] / "src/swarmesh/models/demo/demo.gguf"


class Heard:
    """One thing an agent said, and when."""

    def __init__(self, exchange: Exchange) -> None:
        self.at_s = time.monotonic()
        self.method = exchange.request.method
        self.target = exchange.request.target.decode()
        self.key = exchange.request.header(b"authorization")
        self.body: dict[str, Any] = msgspec.json.decode(exchange.request.body) if exchange.request.body else {}


class LittleQueen:
    """Answers waggleproto; `known` empty makes her a queen that never heard of anybody."""

    def __init__(self, home: Home, next_waggle: float = 30.0) -> None:
        self.heard: list[Heard] = []
        self.known: set[str] = set()
        self.next_waggle = next_waggle
        self._home = home
        self._server: HttpServer | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        self._server = HttpServer(self._answer)
        await self._server.listen(host="127.0.0.1")
        note = QueenFile(f"http://127.0.0.1:{self._server.port}", 1, 0.0, "test")
        write_private(self._home.queen_file, msgspec.json.encode(note))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def wait_for(self, wanted: Callable[[Heard], bool], timeout_s: float = 20.0) -> Heard:
        async with asyncio.timeout(timeout_s):
            while True:
                for heard in self.heard:
                    if wanted(heard):
                        return heard
                self._news.clear()
                await self._news.wait()

    async def wait_status(self, status: str, timeout_s: float = 20.0) -> Heard:
        return await self.wait_for(
            lambda h: h.target.endswith("/waggleproto") and h.body["status"] == status, timeout_s
        )

    async def wait_alarm(self, timeout_s: float = 20.0) -> Heard:
        return await self.wait_for(lambda h: h.target == "/callback/error", timeout_s)

    def forget(self) -> None:
        self.heard.clear()

    def _answer(self, exchange: Exchange) -> None:
        heard = Heard(exchange)
        self.heard.append(heard)
        worker_id = heard.body.get("rustbee_id", "")
        status = "healthy"
        if heard.target == "/v2/swarmesh/rustbee":
            self.known.add(worker_id)
        elif heard.target.endswith("/waggleproto") and worker_id not in self.known:
            status = "unknown"
        answer = {"acknowledged": status != "unknown", "status": status, "next_waggle": self.next_waggle}
        exchange.respond_json(200, msgspec.json.encode(answer))
        self._news.set()


class Bee:
    """A running agent and a client that has its key."""

    def __init__(self, spec: WorkerSpec, host: LocalHost, pid: int) -> None:
        self.spec = spec
        self.host = host
        self.pid = pid
        self.client = HttpClient(Address(path=spec.socket_path), headers=[(b"authorization", f"Bearer {KEY}".encode())])

    async def health(self) -> dict[str, Any]:
        _, body = await self.client.request("GET", "/health")
        return msgspec.json.decode(body)

    async def execute(self, body: dict[str, Any], **headers: str) -> list[SseEvent]:
        """All events of a task."""
        return [event async for event in self.events("POST", "/execute", body, **headers)]

    async def events(
        self, method: str, target: str, body: dict[str, Any] | None = None, **headers: str
    ) -> AsyncIterator[SseEvent]:
        named = [(f"x-swarmesh-{name.replace('_', '-')}".encode(), value.encode()) for name, value in headers.items()]
        data = None if body is None else msgspec.json.encode(body)
        async with self.client.stream(method, target, data, named) as response:
            assert response.status == 200, await response.read()
            reader = SseReader()
            async for chunk in response.chunks():
                for event in reader.feed(chunk):
                    yield event

    async def post(self, target: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = await self.client.request("POST", target, msgspec.json.encode(body), timeout_s=30.0)
        return status, msgspec.json.decode(answer)


def make_spec(home: Home, worker_id: str = "rustbee-1", **changes: Any) -> WorkerSpec:
    fields: dict[str, Any] = {
        "rustbee_id": worker_id,
        "modelcell": "demo",
        "backend": Backend.AUTO,
        "engine": EngineKind.FAKE,
        "host": "local",
        "socket_path": str(home.sockets_dir / f"{worker_id}.sock"),
        "engine_socket_path": str(home.sockets_dir / f"{worker_id}-engine.sock"),
        "work_dir": str(home.worker_dir(worker_id)),
        "key": KEY,
        "queen_file": str(home.queen_file),
    }
    return WorkerSpec(**{**fields, **changes})


@asynccontextmanager
async def running_bee(home: Home, spec: WorkerSpec) -> AsyncIterator[Bee]:
    host = LocalHost(home)
    agent = await host.spawn(spec)
    bee = Bee(spec, host, agent.pid)
    try:
        yield bee
    finally:
        bee.client.close()
        await host.stop(spec.rustbee_id, grace_s=10.0)
        # One that ends by itself takes its file away, by which the host knows it, a moment before it is gone.
        await ProcessIdentity(agent.pid, agent.started_at, agent.boot_id).wait_exit()
        await host.workers()


def text_of(events: list[SseEvent]) -> str:
    return "".join(msgspec.json.decode(event.data)["text"] for event in events if event.name == "token")
