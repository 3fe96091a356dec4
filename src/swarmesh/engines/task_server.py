"""The child's side of an engine that is Python code: tasks over HTTP on its unix socket."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Protocol

import msgspec

from swarmesh.core.errors import (
    BadInputError,
    InvalidValueError,
    MethodNotAllowedError,
    NotFoundError,
    SwarmeshError,
    UnauthorizedError,
)
from swarmesh.engines import openai_answer, openai_text
from swarmesh.engines.engine import EngineEvent, Token
from swarmesh.engines.event_stream import EventStream
from swarmesh.engines.events import render_error, render_event
from swarmesh.engines.openai_dialect import CHAT_TARGET, COMPLETION_TARGET
from swarmesh.engines.openai_text import Piece, TextRequest
from swarmesh.engines.rerun import behind_shown
from swarmesh.engines.task import read_task
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer, Limits
from swarmesh.wire.errors import envelope
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.resume import FIELD
from swarmesh.wire.sse import SseEvent, render

LIMITS: Final = Limits(body_bytes_max=64 * 1024 * 1024, receive_timeout_s=30.0)
"""As wide as the agent's, which has checked every request."""


class TaskRunner(Protocol):
    """The code that does the work."""

    @property
    def slots(self) -> int:
        """Tasks it runs at once."""

    @property
    def continues(self) -> bool:
        """Whether `execute` follows a resume point; it gets none where it cannot, and runs anew."""

    def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `swarmesh.engines.engine.Engine.execute`."""

    def choice(self, request: TextRequest, index: int) -> AsyncGenerator[Piece, None] | None:
        """One answer to a request that `execute` has no words for: one of several, a tool's call, JSON of a schema.

        None when `execute` will do, or is all there is.
        """


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
            CHAT_TARGET: ("POST", self._chat),
            COMPLETION_TARGET: ("POST", self._completion),
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
        events = self._events(read_task(exchange.request.body), lambda token: token.text)
        await self._stream(exchange, _rendered(events), _execute_error)

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
        choices = self._choices(request)
        if request.stream:
            await self._stream(exchange, openai_answer.stream(choices, shape), _openai_error)
            return
        async with self._slots:
            exchange.respond_json(200, await openai_answer.collect(choices, shape))

    def _choices(self, request: TextRequest) -> openai_answer.Choices:
        choices = [self._runner.choice(request, index) for index in range(request.choices)]
        able = [choice for choice in choices if choice is not None]
        if not able and request.choices == 1:
            return [self._pieces(request)]
        if len(able) < request.choices:
            raise InvalidValueError(f"'n' is {request.n}; this rustbee gives one answer at a time", param="n")
        if request.resume is not None:
            raise BadInputError("only a stream of one answer of free text can be resumed", param=FIELD)
        return able

    async def _pieces(self, request: TextRequest) -> AsyncGenerator[Piece, None]:
        async with aclosing(self._events(request.task(), openai_text.shown_text)) as events:
            async for event in events:
                yield event

    def _events(self, request: ExecuteRequest, text_of: Callable[[Token], str]) -> AsyncGenerator[EngineEvent, None]:
        if request.resume is None or self._runner.continues:
            return self._runner.execute(request)
        anew = msgspec.structs.replace(request, resume=None)
        return behind_shown(self._runner.execute(anew), request.resume, text_of)

    async def _stream(
        self, exchange: Exchange, blocks: AsyncGenerator[bytes, None], failed: Callable[[SwarmeshError], bytes]
    ) -> None:
        stream = EventStream(exchange)
        try:
            async with self._slots, aclosing(blocks):
                async for block in blocks:
                    stream.send(block)
                    await stream.writable()
        except SwarmeshError as error:
            if not exchange.started:
                raise
            stream.send(failed(error))
        stream.finish()


async def _rendered(events: AsyncGenerator[EngineEvent, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield render_event(event, None, "")


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _execute_error(error: SwarmeshError) -> bytes:
    return render_error(error, None)


def _openai_error(error: SwarmeshError) -> bytes:
    return render(SseEvent(envelope(error)))
