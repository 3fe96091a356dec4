"""The control plane's application on a real port, asked by a real client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from swarmesh.core.ids import KeyId
from swarmesh.net.address import Address
from swarmesh.net.asgi import AsgiBridge
from swarmesh.net.client import HttpClient
from swarmesh.net.server import HttpServer
from swarmesh.queen.api.app import control_app
from swarmesh.queen.api.route import Route
from swarmesh.queen.keys import Identity, Role
from swarmesh.wire.sse import SseEvent, SseReader


@dataclass
class ServedApi:
    """Routes that are served to whoever has ``role``; ``errors`` are exceptions that escaped them."""

    http: HttpClient
    errors: list[BaseException]
    role: Role = Role.ADMIN

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status, and the answer: its JSON, or its events."""
        data = None if body is None else msgspec.json.encode(body)
        async with self.http.stream(method, path, data) as response:
            said = await response.read()
            assert response.head is not None
            if response.head.header(b"content-type") == b"text/event-stream; charset=utf-8":
                return response.status, events_of(said)
            return response.status, msgspec.json.decode(said) if said else None


def events_of(data: bytes) -> list[tuple[str, Any]]:
    """Names and data of events."""
    return [read(event) for event in SseReader().feed(data)]


def read(event: SseEvent) -> tuple[str, Any]:
    return event.name, msgspec.json.decode(event.data)


@asynccontextmanager
async def serving_api(routes: list[Route]) -> AsyncIterator[ServedApi]:
    """Serve a table of routes to an admin until the end of the block."""
    errors: list[BaseException] = []
    bridge = AsgiBridge(control_app(routes), errors.append)
    served: ServedApi
    server = HttpServer(
        lambda exchange: bridge(exchange, {"identity": Identity(KeyId(served.role), served.role, "")}),
    )
    await server.listen(host="127.0.0.1")
    http = HttpClient(Address(host="127.0.0.1", port=server.port))
    served = ServedApi(http, errors)
    try:
        yield served
    finally:
        http.close()
        await server.close()
