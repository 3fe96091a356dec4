"""Deterministic text without a model: what every test of relays, queues and failover can be exact about.

The text is a pure function of the conversation (and of the seed, where a temperature asks for chance). A conversation
that ends with the beginning of the assistant's own answer is continued from there, token for token; so is an answer
that another fake engine has begun. Only what it says of its cache depends on what it was asked before.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import msgspec

from swarmesh.core.errors import EngineStartError, ResumeDivergedError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.fake_shapes import WORDS, call_pieces, draw, json_pieces
from swarmesh.engines.openai_text import Piece, TextRequest, ToolDelta
from swarmesh.engines.task import Task, task_of, text_of
from swarmesh.wire.flow import ExecuteRequest, Usage
from swarmesh.wire.resume import Resume

TOKENS_MIN: Final = 20
TOKENS_SPAN: Final = 60
POISON: Final = "poison"
NEVER: Final = -1


class FakeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it behaves; in a worker's ``class_path``, such as ``tokens=200,tokens_per_s=50``.

    Attributes:
        tokens: Length of every answer; 0 lets the conversation decide.
        tokens_per_s: Pace of one stream; 0 is as fast as it goes.
        prefill_ms: Wait before the first token.
        start_ms: Wait before it serves.
        crash_at: The process aborts when it is about to write the token with this index (from 0, counted from the
            answer's beginning wherever that was written) of a conversation with the word ``poison`` in it.
    """

    tokens: int = 0
    tokens_per_s: float = 0.0
    prefill_ms: float = 0.0
    start_ms: float = 0.0
    crash_at: int = NEVER


def read_settings(text: str) -> FakeSettings:
    """Read ``name=value`` pairs parted by commas; empty means all defaults.

    Raises:
        EngineStartError: A name or a value is none.
    """
    pairs = dict(pair.partition("=")[::2] for pair in text.split(",") if pair)
    try:
        return msgspec.convert(pairs, FakeSettings, strict=False)
    except msgspec.ValidationError as error:
        raise EngineStartError(f"the fake engine cannot be set to {text!r}: {error}") from error


def fake_tokens(conversation: str, count: int) -> list[Token]:
    """The first ``count`` tokens of the answer to a conversation; ids are the words' places in the list, from 1."""
    tokens = []
    for index in range(count):
        word_id = draw(f"{conversation}\0{index}") % len(WORDS) + 1
        text = WORDS[word_id - 1]
        tokens.append(Token(text if index == 0 else f" {text}", (word_id,)))
    return tokens


class FakeRunner:
    """See `swarmesh.engines.task_server.TaskRunner`.

    Args:
        crash: What a crash is.
    """

    continues = True
    """It begins in the middle of an answer as well as at its beginning."""

    def __init__(
        self, settings: FakeSettings, *, slots: int, context_tokens: int, crash: Callable[[], None] = os.abort
    ) -> None:
        self._settings = settings
        self._slots = slots
        self._context_tokens = context_tokens
        self._crash = crash
        self._cache: deque[list[str]] = deque(maxlen=slots)

    @property
    def slots(self) -> int:
        """See `TaskRunner`."""
        return self._slots

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `TaskRunner`."""
        task = task_of(request)
        conversation, prefix = _conversation(task)
        read, cached = self._read(conversation, prefix)
        length = self._settings.tokens or TOKENS_MIN + draw(conversation) % TOKENS_SPAN
        left = _after(fake_tokens(conversation, length), prefix)
        room = self._context_tokens - read
        kept = left[: min(room, task.max_tokens or room)]
        pieces, stopped = _until_stop(kept, task.stop)
        shown = _shown(pieces, request.resume)
        async for piece in self._write(pieces, shown, conversation):
            yield piece
        whole = stopped or len(kept) == len(left)
        yield Done("stop" if whole else "length", Usage(read, len(pieces), read + len(pieces)), cached)

    def choice(self, request: TextRequest, index: int) -> AsyncGenerator[Piece, None] | None:
        """See `TaskRunner`.

        With ``tools`` (and no ``tool_choice`` of ``none``) the answer is one call of the first tool; with a
        ``response_format`` it is JSON. Of several choices each is the answer to a seed of its own, the request's plus
        its index, also where the temperature leaves nothing to chance.
        """
        if request.tools and request.tool_choice != "none":
            return self._shaped(request, index)
        if request.response_format is not None and request.response_format.get("type") != "text":
            return self._shaped(request, index)
        return self.execute(_task(request, index)) if request.choices > 1 else None

    async def _shaped(self, request: TextRequest, index: int) -> AsyncGenerator[Piece, None]:
        conversation, prefix = _conversation(task_of(_task(request, index)))
        read, cached = self._read(conversation, prefix)
        pieces: Sequence[Token | ToolDelta]
        if request.tools and request.tool_choice != "none":
            pieces, reason = call_pieces(request.tools[0], conversation), "tool_calls"
        else:
            schema = ((request.response_format or {}).get("json_schema") or {}).get("schema") or {"type": "object"}
            pieces, reason = json_pieces(schema, conversation), "stop"
        async for piece in self._write(pieces, 0, conversation):
            yield piece
        yield Done(reason, Usage(read, len(pieces), read + len(pieces)), cached)

    def _read(self, conversation: str, prefix: str) -> tuple[int, int]:
        # How many tokens the prompt has, and how many of them are in the cache: that of the last prompts, one a slot.
        words = f"{conversation} {prefix}".split()
        if len(words) >= self._context_tokens:
            raise TaskRefusedError(f"the task has {len(words)} tokens, the context {self._context_tokens}")
        cached = max((_common(words, known) for known in self._cache), default=0)
        self._cache.append(words)
        return len(words), cached

    async def _write(
        self, pieces: Sequence[Token | ToolDelta], shown: int, conversation: str
    ) -> AsyncGenerator[Any, None]:
        await asyncio.sleep(self._settings.prefill_ms / 1000)
        for index in range(shown, len(pieces)):
            if index == self._settings.crash_at and POISON in conversation:
                self._crash()
            yield pieces[index]
            if self._settings.tokens_per_s:
                await asyncio.sleep(1 / self._settings.tokens_per_s)


def _common(words: list[str], known: list[str]) -> int:
    pairs = enumerate(zip(words, known, strict=False))
    return next((index for index, (mine, its) in pairs if mine != its), min(len(words), len(known)))


def _task(request: TextRequest, index: int) -> ExecuteRequest:
    task = request.task()
    if request.choices == 1:
        return task
    # OpenAI's own default is a temperature of 1, which is what makes its choices differ.
    return msgspec.structs.replace(task, seed=(task.seed or 0) + index, temperature=task.temperature or 1.0)


def _conversation(task: Task) -> tuple[str, str]:
    # What the answer is a function of, and the part of the answer that is there already.
    messages: list[dict[str, Any]] = task.messages or [{"role": "user", "content": task.text}]
    if task.input is not None and task.messages is None and task.prompt is None:
        messages = [{"role": "user", "content": msgspec.json.encode(task.input).decode()}]
    prefix = ""
    if messages[-1].get("role") == "assistant":
        prefix = text_of(messages[-1].get("content"))
        messages = messages[:-1]
    chance = f"{task.seed}:{task.temperature}" if task.temperature else ""
    lines = [f"{message.get('role')}: {text_of(message.get('content'))}" for message in messages]
    return "\n".join([*lines, chance]), prefix


def _after(tokens: list[Token], prefix: str) -> list[Token]:
    # A prefix that is no beginning of the answer is somebody else's text; the answer then starts anew behind it.
    text = ""
    for index, token in enumerate(tokens):
        if text == prefix:
            return tokens[index:]
        text += token.text
    return [] if text == prefix else tokens


def _shown(pieces: list[Token], resume: Resume | None) -> int:
    # By ids where they are known, as a model would go on; the text has to be the same in either case.
    if resume is None:
        return 0
    text = ""
    for count in range(len(pieces) + 1):
        if text == resume.text and len(resume.token_ids) in {0, count}:
            ids = tuple(token_id for piece in pieces[:count] for token_id in piece.token_ids)
            if resume.token_ids in {(), ids}:
                return count
        text += pieces[count].text if count < len(pieces) else ""
    raise ResumeDivergedError


def _until_stop(tokens: list[Token], stops: tuple[str, ...]) -> tuple[list[Token], bool]:
    text = "".join(token.text for token in tokens)
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    if not ends:
        return tokens, False
    end = min(ends)
    kept: list[Token] = []
    for token in tokens:
        room = end - sum(len(piece.text) for piece in kept)
        if room <= 0:
            break
        kept.append(Token(token.text[:room], token.token_ids))
    return kept, True
