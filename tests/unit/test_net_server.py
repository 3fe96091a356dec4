"""The server's side of HTTP/1.1 over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raw_client import RawConnection, open_connection, request_bytes
from swarmesh.core.errors import QueueFullError, UnauthorizedError
from swarmesh.net import server as server_module
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import PIPELINED_MAX, HttpServer, Limits

Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]


class Application:
    """Keeps what came; answers at once with the target and body, unless told to hold."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.aborted: list[Exchange] = []
        self.holding = False

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_abort = lambda: self.aborted.append(exchange)
        if not self.holding:
            self.answer(exchange)

    @staticmethod
    def answer(exchange: Exchange) -> None:
        exchange.respond_json(200, b"%s|%s" % (exchange.request.target, exchange.request.body))


class Served:
    """A server, what it received, and a client's connection to it."""

    def __init__(self, server: HttpServer, application: Application, client: RawConnection) -> None:
        self.server = server
        self.application = application
        self.client = client

    async def bodies(self, count: int) -> list[bytes]:
        return [(await self.client.read_answer()).body for _ in range(count)]


@asynccontextmanager
async def serving(limits: Limits | None = None) -> AsyncIterator[Served]:
    application = Application()
    server = HttpServer(application, limits)
    await server.listen(host="127.0.0.1")
    client = await open_connection(f"http://127.0.0.1:{server.port}")
    try:
        yield Served(server, application, client)
    finally:
        await client.close()
        await server.close()


async def test_one_connection_serves_many_requests() -> None:
    async with serving() as served:
        for number in range(3):
            answer = await served.client.ask("POST", f"/{number}", b"x" * number)
            assert answer.body == b"/%d|%s" % (number, b"x" * number)
        assert len(served.server.connections) == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        served.client.send(b"".join(request_bytes("POST", f"/{n}", b"b%d" % n) for n in range(100)))
        assert await served.bodies(100) == [b"/%d|b%d" % (n, n) for n in range(100)]


async def test_a_pipelined_request_waits_for_the_answer_before_it(until: Until) -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/1") + request_bytes("GET", "/2"))
        await until(lambda: served.application.exchanges)
        assert len(served.application.exchanges) == 1
        served.application.holding = False
        served.application.answer(served.application.exchanges[0])
        assert await served.bodies(2) == [b"/1|", b"/2|"]


async def test_more_pipelined_requests_than_may_wait_stay_in_the_socket(until: Until) -> None:
    async with serving() as served:
        served.application.holding = True
        count = 4 * PIPELINED_MAX
        for number in range(count):  # One write each, so that the server sees many reads.
            served.client.send(request_bytes("POST", f"/{number}", b"y" * 50_000))
        await until(lambda: served.application.exchanges)
        (connection,) = served.server.connections
        await until(lambda: len(connection._waiting) >= PIPELINED_MAX)
        served.application.holding = False
        served.application.answer(served.application.exchanges[0])
        assert [body.partition(b"|")[0] for body in await served.bodies(count)] == [b"/%d" % n for n in range(count)]


async def test_connection_close_is_honoured() -> None:
    async with serving() as served:
        answer = await served.client.ask("GET", "/", headers={"connection": "close"})
        assert answer.headers["connection"] == "close"
        assert await served.client.read_to_end() == b""


async def test_what_follows_a_last_request_is_ignored() -> None:
    async with serving() as served:
        last = request_bytes("GET", "/last", headers={"connection": "close"})
        served.client.send(last + request_bytes("GET", "/never"))
        assert await served.bodies(1) == [b"/last|"]
        assert await served.client.read_to_end() == b""
        assert len(served.application.exchanges) == 1


async def test_http_1_0_closes_unless_asked_to_stay() -> None:
    async with serving() as served:
        stays = await served.client.ask("GET", "/a", headers={"connection": "keep-alive"}, version="1.0")
        assert stays.body == b"/a|"
        leaves = await served.client.ask("GET", "/b", version="1.0")
        assert leaves.headers["connection"] == "close"
        assert [exchange.request.http_1_0 for exchange in served.application.exchanges] == [True, True]
        assert await served.client.read_to_end() == b""


async def test_head_gets_the_length_and_no_body() -> None:
    async with serving() as served:
        answer = await served.client.ask("HEAD", "/abc")
        assert (answer.headers["content-length"], answer.body) == ("5", b"")
        assert (await served.client.ask("GET", "/after")).body == b"/after|"


async def test_a_chunked_body_arrives_whole_and_its_trailers_count_for_nothing() -> None:
    async with serving() as served:
        head = b"POST /t HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
        served.client.send(head + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nauthorization: Bearer x\r\n\r\n")
        assert await served.bodies(1) == [b"/t|abcde"]
        assert served.application.exchanges[0].request.header(b"authorization") is None


async def test_expect_100_continue_is_answered_before_the_body_is_sent() -> None:
    async with serving() as served:
        served.client.send(b"POST /e HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert (await served.client.read_head()).status == 100
        served.client.send(b"abc")
        assert await served.bodies(1) == [b"/e|abc"]


async def test_100_continue_never_comes_before_the_answer_of_an_earlier_request() -> None:
    async with serving() as served:
        expecting = b"POST /e HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        served.client.send(request_bytes("GET", "/first") + expecting)
        assert (await served.client.read_head()).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_offer_to_switch_protocols_is_refused_and_what_came_before_is_answered(method: str) -> None:
    async with serving() as served:
        offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
        served.client.send(request_bytes("GET", "/1") + request_bytes(method, "/2", b"abc", offer))
        assert await served.bodies(1) == [b"/1|"]
        refusal = await served.client.read_answer()
        assert (refusal.status, refusal.error["hint"]) == (400, "Send no Upgrade header.")
        assert len(served.application.exchanges) == 1


async def test_a_client_that_leaves_is_noticed_exactly_once(until: Until) -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/1") + request_bytes("GET", "/2"))
        await until(lambda: served.application.exchanges)
        served.client.abort()
        await until(lambda: not served.server.connections)
        (exchange,) = served.application.exchanges
        assert served.application.aborted == [exchange]
        assert exchange.finished
        exchange.write(b"too late")
        exchange.finish()
        assert served.application.aborted == [exchange]


async def test_a_client_that_leaves_after_its_answer_is_no_abort(until: Until) -> None:
    async with serving() as served:
        await served.client.ask("GET", "/")
        await served.client.close()
        await until(lambda: not served.server.connections)
        assert not served.application.aborted


async def test_closing_the_server_cuts_what_is_not_finished(until: Until) -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/"))
        await until(lambda: served.application.exchanges)
        await served.server.close()
        assert await served.client.read_to_end() == b""
        assert len(served.application.aborted) == 1


async def test_a_slow_reader_is_signalled_and_so_is_its_recovery(until: Until) -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/"))
        (exchange,) = await until(lambda: served.application.exchanges)
        signals: list[bool] = []
        exchange.on_pause = signals.append
        size = 0
        while not signals:
            exchange.write(b"z" * 65536)
            size += 65536
        assert signals == [True]
        exchange.finish(keep_alive=False)
        assert len(await served.client.read_to_end()) == size


async def test_recovery_is_signalled(until: Until) -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/"))
        (exchange,) = await until(lambda: served.application.exchanges)
        signals: list[bool] = []
        exchange.on_pause = signals.append
        while not signals:
            exchange.write(b"z" * 65536)
        while signals != [True, False]:
            assert await served.client.reader.read(65536)


async def test_the_next_answer_waits_until_the_client_has_taken_the_one_before(until: Until, turn: Turn) -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/big") + request_bytes("GET", "/next"))
        (big,) = await until(lambda: served.application.exchanges)
        body = b"z" * 20_000_000
        big.respond_json(200, body)
        served.application.holding = False
        for _ in range(50):
            await turn()
        assert len(served.application.exchanges) == 1
        assert len((await served.client.read_answer()).body) == len(body)
        assert await served.bodies(1) == [b"/next|"]


async def test_an_error_has_its_headers() -> None:
    async with serving() as served:
        served.application.holding = True
        served.client.send(request_bytes("GET", "/1") + request_bytes("GET", "/2"))
        errors = iter([UnauthorizedError("no key"), QueueFullError("full", retry_after_s=7)])
        served.application.answer = lambda exchange: exchange.fail(next(errors))  # type: ignore[method-assign]
        served.application.holding = False
        first, second = await served.client.read_answer(), await served.client.read_answer()
        assert (first.status, first.headers["www-authenticate"]) == (401, "Bearer")
        assert first.error["code"] == "invalid_api_key"
        assert (second.status, second.headers["retry-after"]) == (429, "7")


async def test_a_unix_socket_serves_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "http.sock"
    application = Application()
    server = HttpServer(application)
    await server.listen(path=str(path))
    client = RawConnection(*await asyncio.open_unix_connection(str(path)))
    assert (await client.ask("GET", "/u")).body == b"/u|"
    await client.close()
    await server.close()


async def test_an_unused_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL_S", 0.01)
    async with serving(Limits(idle_timeout_s=60)) as served:
        assert (await served.client.ask("GET", "/")).status == 200
        (connection,) = served.server.connections
        connection._since_s -= 61  # As if so many seconds had passed since.
        assert await served.client.read_to_end() == b""
