"""llama.cpp's own HTTP API, as its server speaks it: templates, tokens, completions, slots."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar

import msgspec

from swarmesh.core.errors import EngineError, SwarmeshError
from swarmesh.engines.engine import EngineDoor, EngineInfo
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.gguf_keys import has_chat_template
from swarmesh.engines.refusal import engine_error
from swarmesh.net.client import HttpClient, UpstreamError
from swarmesh.wire.spec import Backend, WorkerSpec
from swarmesh.wire.sse import SseReader

T = TypeVar("T")

Prompt = str | list[Any]
"""Text, or texts and token ids in a row; in the first text special tokens are read as such."""

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

    @property
    def spelled(self) -> bytes:
        return self.piece.encode() if isinstance(self.piece, str) else bytes(self.piece)


class _Pieces(msgspec.Struct, frozen=True):
    tokens: list[_Piece]


class _Ids(msgspec.Struct, frozen=True):
    tokens: list[int]


class _Text(msgspec.Struct, frozen=True):
    content: str


class LlamaHttp:
    """A client of one server.

    Attributes:
        has_template: The model has a chat template of its own, so a bare prompt is one user message.
        context_tokens: Of one slot; 0 before `introduce`.
    """

    def __init__(self, door: EngineDoor) -> None:
        self._client = HttpClient(door.address, headers=door.headers)
        self.has_template = False
        self.context_tokens = 0

    async def introduce(self, spec: WorkerSpec, backend: Backend, pid: int) -> EngineInfo:
        """What the server turned out to be; its contexts may be smaller than asked, as its model was made for less."""
        self.has_template = has_chat_template(spec.model_path)
        props = await self._ask("GET", "/props", None, _Props)
        self.context_tokens = props.default_generation_settings.n_ctx
        return EngineInfo(props.total_slots, self.context_tokens, backend, pid)

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

    async def templated(self, body: bytes) -> str:
        """The prompt that a chat request's body makes."""
        return (await self._ask("POST", "/apply-template", body, _Templated)).prompt

    async def completion(self, asked: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The data of each event that ``POST /completion`` streams.

        Raises:
            TaskRefusedError: The task itself is at fault.
            EngineDiedError: The engine broke off.
        """
        try:
            async with self._client.stream("POST", "/completion", msgspec.json.encode(asked)) as response:
                if response.status != 200:
                    raise engine_error(response.status, await response.read())
                reader = SseReader()
                async for data in response.chunks():
                    for event in reader.feed(data):
                        yield event.data
        except UpstreamError as error:
            raise EngineDiedError(f"the engine broke off: {error.message}") from error

    async def ids_of(self, text: str, count: int, last: int) -> tuple[int, ...]:
        """The ``count`` token ids that make up ``text`` and end with ``last``; none when that cannot be told."""
        try:
            pieces = (await self._pieces(text))[-count:]
        except SwarmeshError:
            return ()
        spelled = b"".join(piece.spelled for piece in pieces)
        ids = tuple(piece.id for piece in pieces)
        return ids if spelled == text.encode() and ids[-1] == last else ()

    async def spell(self, text: str) -> tuple[int, ...]:
        """The token ids that the tokenizer makes of an answer's text; none when they do not spell exactly that."""
        pieces = await self._pieces(text)
        left = sum(len(piece.spelled) for piece in pieces) - len(text.encode())
        # Some tokenizers put a blank before every text; an answer has none before it but its own.
        while pieces and left > 0:
            left -= len(pieces.pop(0).spelled)
        spelled = b"".join(piece.spelled for piece in pieces)
        return tuple(piece.id for piece in pieces) if spelled == text.encode() else ()

    async def text_of(self, ids: tuple[int, ...]) -> str:
        """What token ids spell; bytes that are no characters yet come as replacement characters."""
        body = msgspec.json.encode({"tokens": ids})
        return (await self._ask("POST", "/detokenize", body, _Text)).content

    async def count(self, prompt: Prompt, *, begins: bool = True) -> int:
        """How many tokens the server makes of a prompt, or of a part that does not begin one."""
        total = 0
        for index, part in enumerate([prompt] if isinstance(prompt, str) else prompt):
            first = begins and index == 0
            total += len(await self._tokens(part, first=first)) if isinstance(part, str) else 1
        return total

    def close(self) -> None:
        """Close kept connections."""
        self._client.close()

    async def _tokens(self, text: str, *, first: bool) -> list[int]:
        body = msgspec.json.encode({"content": text, "add_special": first, "parse_special": True})
        return (await self._ask("POST", "/tokenize", body, _Ids)).tokens

    async def _pieces(self, text: str) -> list[_Piece]:
        asked = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
        return (await self._ask("POST", "/tokenize", msgspec.json.encode(asked), _Pieces)).tokens

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
