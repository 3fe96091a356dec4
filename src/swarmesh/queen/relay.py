"""The data plane: OpenAI's routes, one client connection to one worker, bytes forwarded as they come (DESIGN 3)."""

from __future__ import annotations

import itertools
import secrets
from functools import partial
from typing import Final

import msgspec

from swarmesh.core.errors import InvalidValueError, SwarmeshError, TooManyStreamsError
from swarmesh.core.events import TaskSubmitted
from swarmesh.core.ids import KeyId, Priority, TaskId
from swarmesh.net.exchange import Exchange
from swarmesh.queen.background import BackgroundChats
from swarmesh.queen.choices import Choices
from swarmesh.queen.collected import Collected
from swarmesh.queen.decision_headers import TASK_HEADER, decision_headers
from swarmesh.queen.driver import Driver
from swarmesh.queen.keys import Identity
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.relayed_answer import RelayedAnswer
from swarmesh.queen.vigil import Vigil
from swarmesh.wire.body import decode_body
from swarmesh.wire.openai import ChatRequest, CompletionRequest, EmbeddingRequest, OpenAiRequest

RETRY_AFTER_S: Final = 5
# Looked up once: a member of an enum costs a call each time it is taken from its class.
_LOW: Final = Priority.LOW
_MEDIUM: Final = Priority.MEDIUM


class Relay:
    """Takes requests of the hot routes and follows each to its end.

    Attributes:
        active: Answers that are queued or running.
    """

    def __init__(
        self, driver: Driver, models: KnownModels, vigil: Vigil, background: BackgroundChats, *, streams_max: int
    ) -> None:
        self.active = 0
        self._background = background
        self._driver = driver
        self._vigil = vigil
        self._models = models
        self._streams_max = streams_max
        self._prefix = secrets.token_hex(4)
        self._serial = itertools.count(1)
        self._decoders: dict[bytes, msgspec.json.Decoder[OpenAiRequest]] = {
            kind.target: msgspec.json.Decoder(kind) for kind in (ChatRequest, CompletionRequest, EmbeddingRequest)
        }

    def serves(self, target: bytes) -> bool:
        """Whether this path is one of the hot routes."""
        return target in self._decoders

    def take(self, exchange: Exchange, identity: Identity) -> None:
        """Answer one request; every mistake in it becomes an error answer."""
        target = exchange.request.path
        try:
            if self.active >= self._streams_max:
                self._refuse(exchange, identity.key_id)
                return
            request = decode_body(self._decoders[target], exchange.request.body)
        except SwarmeshError as error:
            exchange.fail(error)
            return
        exchange.request.body = b""  # The decoded form is all that is needed from here on.
        if isinstance(request, EmbeddingRequest):
            self._run(exchange, request, identity=identity)
        elif request.background:
            self._take_in_background(exchange, identity, request)
        elif request.choices() > 1:
            self._take_several(exchange, identity, request)
        elif request.priority is _LOW and not request.streams():
            Collected(exchange, request).begin(partial(self._run, identity=identity, tells_waiting=False))
        else:
            self._run(exchange, request, identity=identity)

    def _refuse(self, exchange: Exchange, key_id: KeyId) -> None:
        words = f"{self.active} answers are relayed already, the most there may be"
        error, task_id = TooManyStreamsError(words, retry_after_s=RETRY_AFTER_S), self._new_task_id()
        self._driver.refused.add_unread(task_id, error, key_id)
        exchange.fail(error, [(TASK_HEADER, task_id.encode())])

    def _refuse_unknown(self, exchange: Exchange, submitted: TaskSubmitted) -> None:
        # The core would refuse it as well, and knows no names that nobody serves now.
        error = self._models.not_found(submitted.model, param="model")
        self._driver.refused.add(submitted, error)
        exchange.fail(error, decision_headers(b"", 0, 0, submitted.task_id.encode()))

    def _take_several(self, exchange: Exchange, identity: Identity, request: ChatRequest | CompletionRequest) -> None:
        # Each choice is a task, and all of them are under way at once: more than a key may have never are.
        most, wanted = self._driver.swarm.dispatcher.limits.of(identity.key_id).concurrency, request.choices()
        if 0 < most < wanted:
            words = f"n is {wanted}, and this key may have {most} answers under way at once"
            exchange.fail(InvalidValueError(words, hint=f"Ask for {most} at most.", param="n"))
            return
        Choices(exchange, request).begin(partial(self._run, identity=identity))

    def _new_task_id(self) -> TaskId:
        return TaskId(f"{self._prefix}-{next(self._serial)}")

    def _take_in_background(
        self, exchange: Exchange, identity: Identity, request: ChatRequest | CompletionRequest
    ) -> None:
        if isinstance(request, ChatRequest):
            self._background.submit(exchange, identity, request)
            return
        words = "'background' is for chats"
        exchange.fail(InvalidValueError(words, hint="Submit a nectarflow.", param="background"))

    def _run(
        self, exchange: Exchange, request: OpenAiRequest, *, identity: Identity, tells_waiting: bool = True
    ) -> None:
        priority, streams = request.priority or _MEDIUM, request.streams()
        request.priority = msgspec.UNSET
        if not isinstance(request, EmbeddingRequest):
            request.background = request.resume = msgspec.UNSET  # What is for us, and what only a queen may say.
        model, known = self._models.resolve(request.model)
        event = TaskSubmitted(
            task_id=self._new_task_id(),
            model=model,
            priority=priority,
            key_id=identity.key_id,
            prompt_chars=request.prompt_chars(),
            max_tokens=request.bound_tokens() * request.choices(),
            model_known=known,
            resumable=streams,
            fingerprint=request.fingerprint(),
            prefix=request.prefix(),
        )
        if model and not known:
            self._refuse_unknown(exchange, event)
            return
        on_over = self._stream_over if streams else self._over
        answer = RelayedAnswer(on_over, self._driver, exchange, event, request, tells_waiting=tells_waiting)
        self.active += 1
        if streams:  # Nothing else is pinged, or has a client who could be told that it waits.
            self._vigil.add(answer)
        self._driver.run(answer)

    def _stream_over(self, answer: RelayedAnswer) -> None:
        self._vigil.remove(answer)
        self.active -= 1

    def _over(self, _answer: RelayedAnswer) -> None:
        self.active -= 1
