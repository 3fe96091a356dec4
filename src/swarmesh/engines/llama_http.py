"""llama.cpp's own HTTP API, as its server speaks it: templates, completions with token ids, slots."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, Protocol, TypeVar

import msgspec

from swarmesh.core.errors import EngineError, SwarmeshError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineDoor, EngineEvent, EngineInfo, Token
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.gguf_keys import has_chat_template
from swarmesh.engines.refusal import engine_error
from swarmesh.net.client import HttpClient, UpstreamError
from swarmesh.wire.flow import ExecuteRequest, Message, Usage
from swarmesh.wire.spec import Backend, WorkerSpec
from swarmesh.wire.sse import SseReader

T = TypeVar("T")

ASK_TIMEOUT_S: Final = 10.0
HEALTH_TIMEOUT_S: Final = 10.0


class _Slot(msgspec.Struct, frozen=True):
    is_processing: bool


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: int


class _Props(msgspec.Struct, frozen=True):
    total_slots: int
    default_generation_settings: _Settings


class _Templated(msgspec.Struct, frozen=True):
    prompt: str


class _Piece(msgspec.Struct, frozen=True):
    id: int
    piece: str | list[int]


class _Pieces(msgspec.Struct, frozen=True):
    tokens: list[_Piece]


class _Complaint(msgspec.Struct, frozen=True):
    message: str


class _Chunk(msgspec.Struct, frozen=True):
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stop_type: str = ""
    prompt_progress: dict[str, Any] | None = None
    error: _Complaint | None = None


class LlamaHttp:
    """A client of one server.

    Attributes:
        has_template: The model has a chat template of its own, so a bare prompt is one user message.
    """

    def __init__(self, door: EngineDoor) -> None:
        self._client = HttpClient(door.address, headers=door.headers)
        self.has_template = False

    async def introduce(self, spec: WorkerSpec, backend: Backend, pid: int) -> EngineInfo:
        """What the server turned out to be; its contexts may be smaller than asked, as its model was made for less."""
        self.has_template = has_chat_template(spec.model_path)
        props = await self._ask("GET", "/props", None, _Props)
        return EngineInfo(props.total_slots, props.default_generation_settings.n_ctx, backend, pid)

    async def healthy(self) -> bool:
        """See `EngineClient`. The slots are told by the server's main loop; its HTTP threads alone prove nothing."""
        try:
            await self._ask("GET", "/slots", None, list[_Slot], HEALTH_TIMEOUT_S)
        except SwarmeshError:
            return False
        return True

    async def ready(self, timeout_s: float) -> bool:
        """Whether it answers that its model is loaded."""
        try:
            status, _ = await self._client.request("GET", "/health", timeout_s=timeout_s)
        except UpstreamError:
            return False
        return status == 200

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `swarmesh.engines.engine.Engine.execute`."""
        body = msgspec.json.encode(_completion(request, await self._prompt(request)))
        try:
            async with self._client.stream("POST", "/completion", body) as response:
                if response.status != 200:
                    raise engine_error(response.status, await response.read())
                reader = SseReader()
                answer = LlamaAnswer(self)
                async for data in response.chunks():
                    for event in reader.feed(data):
                        for piece in await answer.take(event.data):
                            yield piece
        except UpstreamError as error:
            raise EngineDiedError(f"the engine broke off: {error.message}") from error
        if not answer.whole:
            raise EngineDiedError("the engine ended its answer without its end mark")

    async def ids_of(self, text: str, count: int, last: int) -> tuple[int, ...]:
        """The ``count`` token ids that make up ``text`` and end with ``last``; none when that cannot be told."""
        body = msgspec.json.encode({"content": text, "add_special": False, "with_pieces": True})
        try:
            pieces = (await self._ask("POST", "/tokenize", body, _Pieces)).tokens[-count:]
        except SwarmeshError:
            return ()
        spelled = b"".join(p.piece.encode() if isinstance(p.piece, str) else bytes(p.piece) for p in pieces)
        ids = tuple(piece.id for piece in pieces)
        return ids if spelled == text.encode() and ids[-1] == last else ()

    def close(self) -> None:
        """Close kept connections."""
        self._client.close()

    async def _prompt(self, request: ExecuteRequest) -> str:
        messages = request.messages
        if messages is None:
            if request.prompt is None:
                raise TaskRefusedError(
                    "a rustbee of llama.cpp takes 'prompt' or 'messages'",
                    hint="'input' is for rustbees of type python.",
                )
            if not self.has_template:
                return request.prompt
            messages = [Message("user", msgspec.Raw(msgspec.json.encode(request.prompt)))]
        body = msgspec.json.encode({"messages": messages})
        return (await self._ask("POST", "/apply-template", body, _Templated)).prompt

    async def _ask(
        self, method: str, target: str, body: bytes | None, kind: type[T], timeout_s: float = ASK_TIMEOUT_S
    ) -> T:
        try:
            status, answer = await self._client.request(method, target, body, timeout_s=timeout_s)
        except UpstreamError as error:
            raise EngineDiedError(f"the engine broke off: {error.message}") from error
        if status != 200:
            raise engine_error(status, answer)
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise EngineError(f"the engine answered {target} with something else than expected: {error}") from error


class IdSource(Protocol):
    """Who can tell the ids of a text."""

    async def ids_of(self, text: str, count: int, last: int) -> tuple[int, ...]:
        """See `LlamaHttp.ids_of`."""


class LlamaAnswer:
    """Turns the server's chunks into tokens whose ids are complete.

    The server keeps text back while it could become a stop text, or while a character's bytes are not all there; in
    the first case it sends the ids without the text, in the second it drops all ids but the last. So ids wait for
    their text, and dropped ones (``tokens_predicted`` counts them) are found by tokenizing the character. A token
    without ids means that from here on they are not known.

    Attributes:
        whole: The end mark has come.
    """

    def __init__(self, server: IdSource) -> None:
        self._server = server
        self._held_ids: tuple[int, ...] = ()
        self._predicted = 0
        self.whole = False

    async def take(self, data: bytes) -> list[EngineEvent]:
        """What one event of the server means."""
        chunk = _read_chunk(data)
        if chunk.prompt_progress is not None:
            return []  # It carries a token that is none.
        new_count, self._predicted = chunk.tokens_predicted - self._predicted, chunk.tokens_predicted
        ids = chunk.tokens
        if chunk.content and ids and len(ids) < new_count:
            ids = await self._server.ids_of(chunk.content, new_count, ids[-1])
        self._held_ids += ids
        events: list[EngineEvent] = []
        if chunk.content:
            # Half the ids would be taken for all of them; none says that they are not known.
            events.append(Token(chunk.content, self._held_ids if ids else ()))
            self._held_ids = ()
        if chunk.stop:
            self.whole = True
            events.append(_done(chunk))
        return events


def _read_chunk(data: bytes) -> _Chunk:
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except msgspec.DecodeError as error:
        raise EngineError(f"the engine sent an event that cannot be read: {error}") from error
    if chunk.error is not None:
        raise EngineError(f"the engine gave up: {chunk.error.message}")
    return chunk


def _done(chunk: _Chunk) -> Done:
    read, written = chunk.tokens_evaluated, chunk.tokens_predicted
    return Done("length" if chunk.stop_type == "limit" else "stop", Usage(read, written, read + written))


def _completion(request: ExecuteRequest, prompt: str) -> dict[str, Any]:
    asked = {
        "n_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": [request.stop] if isinstance(request.stop, str) else request.stop,
    }
    return {
        "prompt": prompt,
        "stream": True,
        "return_tokens": True,
        # Makes the server answer before a long prompt is read, so that a refusal and a wait can be told apart.
        "return_progress": True,
        "cache_prompt": True,
        **{name: value for name, value in asked.items() if value is not None},
    }
