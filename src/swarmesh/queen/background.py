"""Chats with ``"background": true``: durable tasks that go on by themselves, told as OpenAI's chunks.

Such a task is kept as a nectarflow's submission, made of the chat request: everything that reads nectarflows
(``honeytokens collect``, a restarted queen) reads it too.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.core.task import TaskStatus
from swarmesh.net.exchange import Exchange
from swarmesh.queen.awaited_answers import AwaitedAnswers, after_seq, asked, idempotency_key
from swarmesh.queen.flow import error_of, usage_of
from swarmesh.queen.flows import new_task_id
from swarmesh.queen.keys import Identity
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.refusal_book import RefusalBook
from swarmesh.store.records import TaskRecord, TokenRow
from swarmesh.wire.body import decode_body
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.flow import Accepted, FlowView, ProgressData, Submission, Usage
from swarmesh.wire.http1 import Headers
from swarmesh.wire.openai import ChatRequest
from swarmesh.wire.openai_chunks import ID_PREFIX, ChatChunks, error_event
from swarmesh.wire.sse import waiting_line

ATTACH_PREFIX: Final = ChatRequest.target + b"/"
JOB_HEADER: Final = b"x-swarmesh-job"

KEPT: Final = ("temperature", "top_p", "seed", "stop", "priority")
"""Fields that a submission has under the same name."""
LIMITS: Final = ("max_tokens", "max_completion_tokens")
OWN: Final = ("background", "resume")
READ: Final = frozenset({*KEPT, *LIMITS, *OWN, "model", "messages", "stream", "stream_options", "user"})
"""Every field that is understood here; ``user`` only says on whose behalf, and changes no answer."""
NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repeat_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}
"""Values that say what holds anyway; clients that send all their defaults are not refused for these."""
MESSAGE_FIELDS: Final = frozenset({"role", "content"})

_any_decoder: Final = msgspec.json.Decoder()
_submission_decoder: Final = msgspec.json.Decoder(Submission)
_messages_decoder: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


class OpenAiDialect:
    """A task's events as chat chunks (see `swarmesh.queen.flow.Dialect`).

    Args:
        chunks: Of this task.
        tells_usage: The chunk with the usage was asked for.
    """

    def __init__(self, chunks: ChatChunks, *, tells_usage: bool) -> None:
        self._chunks = chunks
        self._tells_usage = tells_usage

    def opening(self, record: TaskRecord) -> bytes:  # noqa: ARG002 - the protocol's signature
        """The chunk with the role, for who begins."""
        return self._chunks.role()

    def token(self, row: TokenRow) -> bytes:
        """A row's chunk."""
        return self._chunks.text(row.seq, row.text, row.token_ids)

    def closing(self, record: TaskRecord) -> bytes:
        """The end of a task that is over."""
        if record.status != TaskStatus.DONE:
            return error_event(error_of(record) or ErrorBody("cancelled", "the task was cancelled"))
        usage = (usage_of(record) or Usage()) if self._tells_usage else None
        return self._chunks.end(record.finish_reason or "stop", usage)

    def progress(self, progress: ProgressData) -> bytes:
        """A comment: a chunk would be taken for a part of the answer."""
        return waiting_line(progress.message)


class DurableTasks(Protocol):
    """Who keeps tasks and tells their events (`swarmesh.queen.flows.Flows`)."""

    @property
    def refused(self) -> RefusalBook:
        """Where tasks are entered that are not taken in."""

    async def submit(
        self,
        task_id: TaskId,
        submission: Submission,
        body: bytes,
        *,
        model: ModelName,
        model_known: bool,
        key_id: KeyId,
        idempotency_key: str | None,
    ) -> TaskRecord:
        """Keep a task; the same idempotency key gets the same task."""

    async def view(self, task_id: TaskId, key_id: KeyId | None) -> FlowView:
        """A task's state; with ``key_id`` one of another key counts as not known."""

    async def follow(
        self,
        task_id: TaskId,
        exchange: Exchange,
        *,
        key_id: KeyId | None,
        after_seq: int,
        dialect: OpenAiDialect,
        headers: Headers,
    ) -> None:
        """Answer with the task's events after ``after_seq``, ``headers`` added to the stream's head.

        With ``key_id`` a task of another key counts as not known.
        The dialect's opening comes before them only where ``after_seq`` is 0.
        """


class BackgroundChats:
    """Takes chats that go on by themselves, and clients that come back to them."""

    def __init__(self, tasks: DurableTasks, models: KnownModels) -> None:
        self._tasks = tasks
        self._models = models
        self._answers = AwaitedAnswers(tasks.refused)

    def serves(self, method: str, path: bytes) -> bool:
        """Whether somebody comes back to a chat with this request."""
        return method == "GET" and path.startswith(ATTACH_PREFIX)

    def take(self, exchange: Exchange, identity: Identity) -> None:
        """Answer who comes back, with the rest; the path ends with the job id, or with the id of its chunks."""
        self._answers.run(exchange, self._attach(exchange, identity))

    def submit(self, exchange: Exchange, identity: Identity, request: ChatRequest) -> None:
        """Answer a chat with ``background``: with its chunks as they come, or without ``stream`` with its job id."""
        task_id = new_task_id()
        answering = self._submit(exchange, identity, request, task_id)
        self._answers.run(exchange, answering, submitted=task_id, key_id=identity.key_id)

    async def _attach(self, exchange: Exchange, identity: Identity) -> None:
        request = exchange.request
        job_id = request.path.removeprefix(ATTACH_PREFIX).decode("latin-1").removeprefix(ID_PREFIX)
        tells_usage = asked(request, "include_usage") == "true"
        await self._follow(TaskId(job_id), exchange, identity, after_seq=after_seq(request), tells_usage=tells_usage)

    async def _submit(self, exchange: Exchange, identity: Identity, request: ChatRequest, task_id: TaskId) -> None:
        submission, body = submission_of(request)
        model, known = self._models.resolve(submission.modelcell)
        if model and not known:
            raise self._models.not_found(model, param="model")
        record = await self._tasks.submit(
            task_id,
            submission,
            body,
            model=model,
            model_known=known,
            key_id=identity.key_id,
            idempotency_key=idempotency_key(exchange.request),
        )
        if submission.stream:
            await self._follow(record.task_id, exchange, identity, after_seq=0, tells_usage=request.wants_usage())
            return
        headers = [(b"content-type", b"application/json"), *_job_headers(record.task_id)]
        exchange.respond(202, msgspec.json.encode(Accepted(record.task_id, record.status)), headers)

    async def _follow(
        self, task_id: TaskId, exchange: Exchange, identity: Identity, *, after_seq: int, tells_usage: bool
    ) -> None:
        view = await self._tasks.view(task_id, identity.sees)
        chunks = ChatChunks(task_id, created=int(view.created_at), model=view.modelcell)
        dialect = OpenAiDialect(chunks, tells_usage=tells_usage)
        headers = _job_headers(task_id)
        await self._tasks.follow(
            task_id, exchange, key_id=identity.sees, after_seq=after_seq, dialect=dialect, headers=headers
        )


def submission_of(request: ChatRequest) -> tuple[Submission, bytes]:
    """The submission that says what a chat request says, and its JSON.

    Raises:
        InvalidValueError: The request says more than a submission can; the error names the field.
    """
    for name in request.__struct_fields__:
        if name not in READ and _said(getattr(request, name)) not in (None, *NEUTRAL.get(name, ())):
            raise _too_much(name)
    fields: dict[str, Any] = {name: _said(getattr(request, name)) for name in KEPT}
    fields |= {"modelcell": request.model, "max_tokens": request.bound_tokens() or None, "stream": bool(request.stream)}
    given = {"messages": request.messages, **{name: value for name, value in fields.items() if value is not None}}
    body = msgspec.json.encode(given)
    submission = decode_body(_submission_decoder, body)
    _check_messages(request.messages)
    return submission, body


def _check_messages(messages: msgspec.Raw) -> None:
    told = decode_body(_messages_decoder, bytes(messages))
    for number, message in enumerate(told):
        for name, value in message.items():
            if name not in MESSAGE_FIELDS and _said(value) is not None:
                raise _too_much(f"messages[{number}].{name}")


def _said(value: object) -> object:
    """A field's value; None where nothing is said by it."""
    if isinstance(value, msgspec.Raw):
        value = decode_body(_any_decoder, bytes(value))
    return None if value is UNSET else value


def _too_much(name: str) -> InvalidValueError:
    return InvalidValueError(
        f"'background' needs a plain chat, and {name!r} is more than that",
        hint=f"Leave out {name!r}, or leave out 'background'.",
        param=name,
    )


def _job_headers(task_id: TaskId) -> Headers:
    return [(JOB_HEADER, task_id.encode("latin-1"))]
