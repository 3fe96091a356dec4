"""The nectarflow routes that stream: answered on the exchange itself, so that a token is one write."""

from __future__ import annotations

import asyncio
from functools import partial
from urllib.parse import parse_qs

import msgspec
import structlog

from swarmesh.core.errors import InvalidValueError, ModelNotFoundError, SwarmeshError
from swarmesh.core.ids import TaskId
from swarmesh.net.exchange import Exchange
from swarmesh.queen.flows import Flows
from swarmesh.queen.keys import Identity
from swarmesh.queen.known_models import KnownModels
from swarmesh.wire.flow import Accepted
from swarmesh.wire.sse import SseEvent, render

log = structlog.get_logger("flow_routes")

SUBMIT_TARGETS = frozenset({b"/v2/swarmesh/nectarflow", b"/v2/tasks"})
TOKENS_PREFIX = b"/v2/swarmesh/honeytokens/"


class FlowRoutes:
    """Submissions (R-08, and R-09's ``/v2/tasks``) and honeytokens."""

    def __init__(self, flows: Flows, models: KnownModels) -> None:
        self._flows = flows
        self._models = models
        self._tasks: set[asyncio.Task[None]] = set()

    def serves(self, method: str, path: bytes) -> bool:
        """Whether this request is answered here."""
        return (method == "POST" and path in SUBMIT_TARGETS) or (method == "GET" and path.startswith(TOKENS_PREFIX))

    def take(self, exchange: Exchange, identity: Identity) -> None:
        """Answer one request, in a task of its own: the hivecomb takes its time."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange, identity))
        self._tasks.add(task)
        task.add_done_callback(partial(self._answered, exchange))

    def _answered(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request_failed", path=exchange.request.path.decode("latin-1"), exc_info=error)
            exchange.finish(keep_alive=False)  # Nobody waits for an answer that will not come.

    async def _answer(self, exchange: Exchange, identity: Identity) -> None:
        try:
            if exchange.request.method == "POST":
                await self._submit(exchange, identity)
            else:
                await self._tokens(exchange)
        except SwarmeshError as error:
            if not exchange.started:
                exchange.fail(error)

    async def _submit(self, exchange: Exchange, identity: Identity) -> None:
        body = exchange.request.body
        submission = self._flows.read(body)
        model, known = self._models.resolve(submission.modelcell)
        if model and not known:
            raise ModelNotFoundError(f"no modelcell is called {model!r}", param="modelcell")
        idempotency_key = exchange.request.header(b"idempotency-key")
        record = await self._flows.submit(
            submission,
            body,
            model=model,
            model_known=known,
            key_id=identity.key_id,
            idempotency_key=idempotency_key.decode("latin-1") if idempotency_key is not None else None,
        )
        accepted = msgspec.json.encode(Accepted(record.task_id, record.status))
        if submission.stream:
            first = render(SseEvent(accepted, "accepted"))
            await self._flows.follow(record.task_id, exchange, after_seq=0, first=first)
        else:
            exchange.respond_json(202, accepted)

    async def _tokens(self, exchange: Exchange) -> None:
        request = exchange.request
        task_id = TaskId(request.path.removeprefix(TOKENS_PREFIX).decode("latin-1"))
        if b"text/event-stream" not in (request.header(b"accept") or b""):
            exchange.respond_json(200, msgspec.json.encode(await self._flows.tokens(task_id)))
            return
        await self._flows.follow(task_id, exchange, after_seq=_after_seq(exchange))


def _after_seq(exchange: Exchange) -> int:
    """Where to go on: ``?after=SEQ`` before ``Last-Event-ID``, else from the start."""
    request = exchange.request
    asked = parse_qs(request.query.decode("latin-1")).get("after", [])
    text = asked[0] if asked else (request.header(b"last-event-id") or b"0").decode("latin-1")
    if not text.isdecimal() or len(text) > 15:
        raise InvalidValueError(f"{text[:32]!r} is no sequence number", param="after")
    return int(text)
