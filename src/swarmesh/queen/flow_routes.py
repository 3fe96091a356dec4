"""The nectarflow routes that stream: answered on the exchange itself, so that a token is one write."""

from __future__ import annotations

import msgspec

from swarmesh.core.ids import TaskId
from swarmesh.net.exchange import Exchange
from swarmesh.queen.awaited_answers import AwaitedAnswers, after_seq, idempotency_key
from swarmesh.queen.flows import Flows, new_task_id
from swarmesh.queen.keys import Identity
from swarmesh.queen.known_models import KnownModels
from swarmesh.wire.flow import Accepted
from swarmesh.wire.sse import SseEvent, render

SUBMIT_TARGETS = frozenset({b"/v2/swarmesh/nectarflow", b"/v2/tasks"})
TOKENS_PREFIX = b"/v2/swarmesh/honeytokens/"


class FlowRoutes:
    """Submissions (R-08, and R-09's ``/v2/tasks``) and honeytokens."""

    def __init__(self, flows: Flows, models: KnownModels) -> None:
        self._flows = flows
        self._models = models
        self._answers = AwaitedAnswers(flows.refused)

    def serves(self, method: str, path: bytes) -> bool:
        """Whether this request is answered here."""
        return (method == "POST" and path in SUBMIT_TARGETS) or (method == "GET" and path.startswith(TOKENS_PREFIX))

    def take(self, exchange: Exchange, identity: Identity) -> None:
        """Answer one request, in a task of its own: the hivecomb takes its time."""
        if exchange.request.method == "POST":
            task_id = new_task_id()
            answering = self._submit(exchange, identity, task_id)
            self._answers.run(exchange, answering, submitted=task_id, key_id=identity.key_id)
        else:
            self._answers.run(exchange, self._tokens(exchange, identity))

    async def _submit(self, exchange: Exchange, identity: Identity, task_id: TaskId) -> None:
        body = exchange.request.body
        submission = self._flows.read(body)
        model, known = self._models.resolve(submission.modelcell)
        if model and not known:
            raise self._models.not_found(model, param="modelcell")
        record = await self._flows.submit(
            task_id,
            submission,
            body,
            model=model,
            model_known=known,
            key_id=identity.key_id,
            idempotency_key=idempotency_key(exchange.request),
        )
        accepted = msgspec.json.encode(Accepted(record.task_id, record.status))
        if submission.stream:
            first = render(SseEvent(accepted, "accepted"))
            await self._flows.follow(record.task_id, exchange, key_id=identity.sees, after_seq=0, first=first)
        else:
            exchange.respond_json(202, accepted)

    async def _tokens(self, exchange: Exchange, identity: Identity) -> None:
        request = exchange.request
        task_id = TaskId(request.path.removeprefix(TOKENS_PREFIX).decode("latin-1"))
        if b"text/event-stream" not in (request.header(b"accept") or b""):
            exchange.respond_json(200, msgspec.json.encode(await self._flows.tokens(task_id, identity.sees)))
            return
        await self._flows.follow(task_id, exchange, key_id=identity.sees, after_seq=after_seq(request))
