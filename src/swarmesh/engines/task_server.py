"""The child's side of an engine that is Python code: tasks over HTTP on its unix socket."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

import msgspec

from swarmesh.core.errors import MethodNotAllowedError, NotFoundError, SwarmeshError, UnauthorizedError
from swarmesh.engines import openai_text
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.event_stream import EventStream
from swarmesh.engines.events import render_error, render_event
from swarmesh.engines.task import read_task
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer, Limits
from swarmesh.wire.errors import envelope
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.sse import DONE_MARK, SseEvent, render

LIMITS: Final = Limits(body_bytes_max=64 * 1024 * 1024, receive_timeout_s=30.0)
"""As wide as the agent's, which has checked every request."""


class TaskRunner(Protocol):
    """The code that does the work."""

    @property
    def slots(self) -> int:
        """Tasks it runs at once."""

    def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `swarmesh.engines.engine.Engine.execute`."""


class TaskServer:
    """Serves a runner, and OpenAI's text routes on top of it.

    Args:
        key: What the agent shows as a bearer token.
        model: The name in OpenAI's answers.
    """

    def __init__(self, runner: TaskRunner, *, key: str, model: str) -> None:
        self._runner = runner
        self._bearer = f"Bearer {key}".encode()
        self._model = model
        self._slots = asyncio.Semaphore(runner.slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._http = HttpServer(self._answer, LIMITS)
        self._routes: dict[bytes, tuple[str, Callable[[Exchange], Awaitable[None]]]] = {
            b"/health": ("GET", self._health),
            b"/execute": ("POST", self._execute),
            openai_text.CHAT_TARGET: ("POST", self._chat),
            openai_text.COMPLETION_TARGET: ("POST", self._completion),
            openai_text.MODELS_TARGET: ("GET", self._models),
        }

    async def listen(self, path: str) -> None:
        """Serve on a unix socket that does not exist yet; the process's umask keeps others out."""
        await self._http.listen(path=path)

    async def close(self) -> None:
        """Cut what is running and serve no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def _answer(self, exchange: Exchange) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(exchange))
        exchange.on_abort = lambda: _cancel(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._route(exchange)(exchange)
        except SwarmeshError as error:
            if not exchange.started:
                exchange.fail(error)
        finally:
            exchange.finish(keep_alive=False)

    def _route(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[None]]:
        request = exchange.request
        if not hmac.compare_digest(request.header(b"authorization") or b"", self._bearer):
            raise UnauthorizedError
        route = self._routes.get(request.path)
        if route is None:
            raise NotFoundError(f"this engine has no route {request.path.decode('latin-1')!r}")
        if request.method != route[0]:
            raise MethodNotAllowedError(f"{request.path.decode()} takes {route[0]}")
        return route[1]

    async def _health(self, exchange: Exchange) -> None:
        exchange.respond_json(200, b'{"status":"ok"}')

    async def _models(self, exchange: Exchange) -> None:
        exchange.respond_json(200, msgspec.json.encode(openai_text.models_answer(self._model, int(time.time()))))

    async def _execute(self, exchange: Exchange) -> None:
        request = read_task(exchange.request.body)
        await self._stream(exchange, request, lambda event: [render_event(event, None, "")], _execute_error)

    async def _chat(self, exchange: Exchange) -> None:
        await self._text(exchange, chat=True)

    async def _completion(self, exchange: Exchange) -> None:
        await self._text(exchange, chat=False)

    async def _text(self, exchange: Exchange, *, chat: bool) -> None:
        request = openai_text.read_request(exchange.request.body, chat=chat)
        shape = openai_text.TextFormat(
            request,
            chat=chat,
            model=self._model,
            answer_id=f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            created_s=int(time.time()),
        )
        if not request.stream:
            exchange.respond_json(200, msgspec.json.encode(await self._collect(request.task(), shape)))
            return
        await self._stream(exchange, request.task(), _OpenAiRenderer(shape), _openai_error)

    async def _collect(self, request: ExecuteRequest, shape: openai_text.TextFormat) -> dict[str, Any]:
        text: list[str] = []
        async with self._slots, aclosing(self._runner.execute(request)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return shape.answer("".join(text), event)
                text.append(openai_text.shown_text(event))
        raise AssertionError("a runner ends with Done")

    async def _stream(
        self,
        exchange: Exchange,
        request: ExecuteRequest,
        rendered: Callable[[EngineEvent], list[bytes]],
        failed: Callable[[SwarmeshError], bytes],
    ) -> None:
        stream = EventStream(exchange)
        try:
            async with self._slots, aclosing(self._runner.execute(request)) as events:
                async for event in events:
                    stream.send(b"".join(rendered(event)))
                    await stream.writable()
        except SwarmeshError as error:
            if not exchange.started:
                raise
            stream.send(failed(error))
        stream.finish()


class _OpenAiRenderer:
    def __init__(self, shape: openai_text.TextFormat) -> None:
        self._shape = shape
        self._opened = False

    def __call__(self, event: EngineEvent) -> list[bytes]:
        chunks = [] if self._opened else self._shape.opening()
        self._opened = True
        if isinstance(event, Token):
            return [_data(chunk) for chunk in [*chunks, self._shape.token(event)]]
        return [*(_data(chunk) for chunk in [*chunks, *self._shape.closing(event)]), render(SseEvent(DONE_MARK))]


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _data(chunk: dict[str, Any]) -> bytes:
    return render(SseEvent(msgspec.json.encode(chunk)))


def _execute_error(error: SwarmeshError) -> bytes:
    return render_error(error, None)


def _openai_error(error: SwarmeshError) -> bytes:
    return render(SseEvent(envelope(error)))
