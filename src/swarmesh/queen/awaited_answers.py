"""Requests whose answers have to wait for the hivecomb: each is answered by a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import structlog

from swarmesh.core.errors import InvalidValueError, SwarmeshError
from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request

SEQ_DIGITS_MAX: Final = 15

log = structlog.get_logger("awaited_answers")


class AwaitedAnswers:
    """Runs them, and sees to it that none ends without a word."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def run(self, exchange: Exchange, answering: Coroutine[Any, Any, None]) -> None:
        """Answer an exchange; an error that is raised before anything was sent becomes the answer."""
        task = asyncio.get_running_loop().create_task(_answered(exchange, answering))
        self._running.add(task)
        task.add_done_callback(partial(self._over, exchange))

    def _over(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request_failed", path=exchange.request.path.decode("latin-1"), exc_info=error)
            exchange.finish(keep_alive=False)  # Nobody waits for an answer that will not come.


async def _answered(exchange: Exchange, answering: Coroutine[Any, Any, None]) -> None:
    try:
        await answering
    except SwarmeshError as error:
        if not exchange.started:
            exchange.fail(error)


def asked(request: Request, name: str) -> str:
    """A parameter of the query, empty when it is not there."""
    return parse_qs(request.query.decode("latin-1")).get(name, [""])[0]


def after_seq(request: Request) -> int:
    """Where to go on: ``?after=SEQ`` before ``Last-Event-ID``, else from the start.

    Raises:
        InvalidValueError: It is no sequence number.
    """
    text = asked(request, "after") or (request.header(b"last-event-id") or b"0").decode("latin-1")
    if not text.isdecimal() or len(text) > SEQ_DIGITS_MAX:
        raise InvalidValueError(f"{text[:32]!r} is no sequence number", param="after")
    return int(text)


def idempotency_key(request: Request) -> str | None:
    """What makes a repeated submission the same one, if the client said so."""
    key = request.header(b"idempotency-key")
    return key.decode("latin-1") if key is not None else None
