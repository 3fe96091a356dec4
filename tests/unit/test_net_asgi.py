"""A Starlette application behind our own server, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from raw_client import RawConnection, open_connection
from swarmesh.net.asgi import AsgiApp, AsgiBridge, Message
from swarmesh.net.server import HttpServer

Until = Callable[..., Awaitable[Any]]


class Pages:
    """An application, and what happened in it."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.sent = 0
        routes = [
            Route("/show/{name}", self.show, methods=["GET", "POST"]),
            Route("/empty", self.empty),
            Route("/stream", self.stream),
            Route("/endless", self.endless),
            Route("/boom", self.boom),
        ]
        self.app = Starlette(routes=routes)

    async def show(self, request: Request) -> Response:
        body = (await request.body()).decode()
        shown = [request.path_params["name"], request.query_params.get("q"), body, request.state.who]
        return JSONResponse(shown, headers={"x-more": "yes"})

    async def empty(self, _request: Request) -> Response:
        return Response(status_code=204)

    async def stream(self, _request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            await self.may_go_on.wait()
            yield b"two"

        return StreamingResponse(parts(), media_type="text/plain")

    async def endless(self, _request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                self.sent += 1
                yield b"z" * 65536

        return StreamingResponse(parts())

    async def boom(self, _request: Request) -> Response:
        raise ZeroDivisionError("boom")


class Served:
    def __init__(self, client: RawConnection, errors: list[BaseException], bridge: AsgiBridge) -> None:
        self.client = client
        self.errors = errors
        self.bridge = bridge


@asynccontextmanager
async def serving(app: AsgiApp) -> AsyncIterator[Served]:
    errors: list[BaseException] = []
    bridge = AsgiBridge(app, errors.append)
    server = HttpServer(lambda exchange: bridge(exchange, {"who": "me"}))
    await server.listen(host="127.0.0.1")
    client = await open_connection(f"http://127.0.0.1:{server.port}")
    try:
        yield Served(client, errors, bridge)
    finally:
        await client.close()
        await server.close()


async def test_path_query_body_and_state_reach_the_application() -> None:
    async with serving(Pages().app) as served:
        answer = await served.client.ask("POST", "/show/b%C3%A4r?q=a%20b", b"text")
        assert answer.json() == ["b\u00e4r", "a b", "text", "me"]
        assert (answer.headers["x-more"], answer.headers["content-type"]) == ("yes", "application/json")
        assert (await served.client.ask("GET", "/show/x")).json() == ["x", None, "", "me"]


async def test_many_requests_share_a_connection() -> None:
    async with serving(Pages().app) as served:
        for number in range(20):
            assert (await served.client.ask("GET", f"/show/{number}")).json()[0] == str(number)
        assert not served.bridge._tasks


async def test_an_answer_without_a_body() -> None:
    async with serving(Pages().app) as served:
        answer = await served.client.ask("GET", "/empty")
        assert answer.status == 204
        assert not {"content-length", "transfer-encoding"} & set(answer.headers)
        assert (await served.client.ask("GET", "/show/after")).status == 200


async def test_head_has_the_head_of_get() -> None:
    async with serving(Pages().app) as served:
        got = await served.client.ask("GET", "/show/x")
        head = await served.client.ask("HEAD", "/show/x")
        assert (head.status, head.headers, head.body) == (200, got.headers, b"")


async def test_a_stream_goes_out_piece_by_piece() -> None:
    pages = Pages()
    async with serving(pages.app) as served:
        served.client.send(b"GET /stream HTTP/1.1\r\nhost: t\r\n\r\n")
        assert (await served.client.read_head()).headers["transfer-encoding"] == "chunked"
        assert await served.client.read_chunk() == b"one"
        pages.may_go_on.set()
        assert await served.client.read_chunk() == b"two"
        assert await served.client.read_chunk() == b""
        assert (await served.client.ask("GET", "/show/after")).status == 200


async def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    pages = Pages()
    pages.may_go_on.set()
    async with serving(pages.app) as served:
        answer = await served.client.ask("GET", "/stream", headers={"connection": "keep-alive"}, version="1.0")
        assert answer.body == b"onetwo"
        assert "transfer-encoding" not in answer.headers


async def test_a_stream_that_head_asks_for_has_no_body() -> None:
    pages = Pages()
    pages.may_go_on.set()
    async with serving(pages.app) as served:
        await served.client.ask("HEAD", "/stream")
        assert (await served.client.ask("GET", "/show/after")).status == 200


async def test_an_endless_stream_waits_for_a_slow_client_and_ends_when_it_leaves(until: Until) -> None:
    pages = Pages()
    async with serving(pages.app) as served:
        served.client.send(b"GET /endless HTTP/1.1\r\nhost: t\r\n\r\n")
        await served.client.read_head()
        (cycle_task,) = served.bridge._tasks
        sent = -1
        while sent != pages.sent:  # It comes to rest although nobody reads.
            sent = pages.sent
            await asyncio.wait({cycle_task}, timeout=0.05)
        served.client.abort()
        await until(lambda: not served.bridge._tasks)
        assert not served.errors


async def test_an_application_that_fails_answers_500_and_is_reported() -> None:
    async with serving(Pages().app) as served:
        assert (await served.client.ask("GET", "/boom")).status == 500
        assert [type(error) for error in served.errors] == [ZeroDivisionError]
        assert (await served.client.ask("GET", "/show/after")).status == 200


async def test_an_answer_that_is_left_unfinished_is_cut() -> None:
    async def app(_scope: Message, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with serving(app) as served:
        served.client.send(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        assert "connection" not in (await served.client.read_head()).headers
        assert await served.client.read_to_end() == b"4\r\nhalf\r\n"


async def test_an_application_that_says_nothing_is_cut() -> None:
    async def app(_scope: Message, _receive: Any, _send: Any) -> None:
        return

    async with serving(app) as served:
        served.client.send(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        assert await served.client.read_to_end() == b""


async def test_an_application_hears_that_its_client_left(until: Until) -> None:
    heard: list[str] = []

    async def app(_scope: Message, receive: Any, send: Any) -> None:
        heard.append((await receive())["type"])
        heard.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"to nobody"})

    async with serving(app) as served:
        served.client.send(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        await until(lambda: heard == ["http.request"])
        served.client.abort()
        await until(lambda: heard == ["http.request", "http.disconnect"])
        await until(lambda: not served.bridge._tasks)
        assert not served.errors
