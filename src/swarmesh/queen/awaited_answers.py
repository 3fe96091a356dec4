"""Requests whose answers have to wait for the hivecomb: each is answered by a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import structlog

from swarmesh.core.errors import BadInputError, InvalidValueError, SwarmeshError
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request
from swarmesh.queen.decision_book import NOBODY
from swarmesh.queen.decision_headers import TASK_HEADER
from swarmesh.queen.refusal_book import RefusalBook
from swarmesh.wire.http1 import Headers

SEQ_DIGITS_MAX: Final = 15

log = structlog.get_logger("awaited_answers")


class AwaitedAnswers:
    """Runs them, and sees to it that none ends without a word.

    Args:
        refused: Where submissions are entered that are answered with an error.
    """

    def __init__(self, refused: RefusalBook) -> None:
        self._refused = refused
        self._running: set[asyncio.Task[None]] = set()

    def run(
        self,
        exchange: Exchange,
        answering: Coroutine[Any, Any, None],
        *,
        submitted: TaskId | None = None,
        key_id: KeyId = NOBODY,
    ) -> None:
        """Answer an exchange; an error that is raised before anything was sent becomes the answer.

        ``submitted`` is the task of a submission, ``key_id`` whose it is; a client who is refused is told by which name
        to ask why.
        """
        task = asyncio.get_running_loop().create_task(self._answered(exchange, answering, submitted, key_id))
        self._running.add(task)
        task.add_done_callback(partial(self._over, exchange))

    async def _answered(
        self, exchange: Exchange, answering: Coroutine[Any, Any, None], submitted: TaskId | None, key_id: KeyId
    ) -> None:
        try:
            await answering
        except SwarmeshError as error:
            if not exchange.started:
                exchange.fail(error, self._refusal_headers(error, submitted, key_id))

    def _refusal_headers(self, error: SwarmeshError, submitted: TaskId | None, key_id: KeyId) -> Headers:
        # What cannot be understood is no task yet.
        if submitted is None or isinstance(error, BadInputError):
            return []
        if self._refused.find(submitted) is None:
            self._refused.add_unread(submitted, error, key_id)
        return [(TASK_HEADER, submitted.encode())]

    def _over(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request_failed", path=exchange.request.path.decode("latin-1"), exc_info=error)
            exchange.finish(keep_alive=False)  # Nobody waits for an answer that will not come.


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
