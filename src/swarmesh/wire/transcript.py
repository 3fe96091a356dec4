"""What a client has seen of an OpenAI stream, and how to go on with it without showing anything twice.

A chunk is taken apart into *atoms*: what is appended to (text, arguments of a tool call, lists of log-probabilities)
and what is said once (the role, the name of a call, why it finished). So one rule tells for all of them what of a
stream that begins anew was seen before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from swarmesh.core.errors import EngineError, ResumeDivergedError
from swarmesh.wire.resume import Resume
from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader, render

Path = tuple[Any, ...]
Appended = str | list[Any]

ENVELOPE: Final = ("id", "created", "model", "system_fingerprint")
"""What every chunk of one stream repeats."""
_PLAIN: Final = frozenset({("delta", "content"), ("delta", "role"), ("text",), ("finish_reason",)})
_FIRST_CHOICE: Final = 0


class ShownChoice:
    """One answer of a stream, as far as it was shown."""

    def __init__(self) -> None:
        self.appended: dict[Path, Appended] = {}
        self.once: dict[Path, Any] = {}

    def add(self, choice: dict[str, Any]) -> None:
        """Take in one chunk's part of it."""
        for path, value in _appended_atoms(choice):
            before = self.appended.get(path)
            self.appended[path] = value if before is None else before + value  # type: ignore[operator]  # One kind each.
        for path, value in _once_atoms(choice):
            self.once.setdefault(path, value)


class Transcript:
    """A stream as its client saw it.

    Attributes:
        last_seq: Number of the last event.
        envelope: ``id``, ``created``, ``model`` and ``system_fingerprint`` of its chunks.
        choices: By index.
        usage: As it was told.
        done: The end mark was sent.
    """

    def __init__(self) -> None:
        self.last_seq = 0
        self.envelope: dict[str, Any] = {}
        self.choices: dict[int, ShownChoice] = {}
        self.usage: dict[str, Any] | None = None
        self.done = False
        self._token_ids: list[int] = []
        self._ids_known = True

    @classmethod
    def read(cls, payload: bytes) -> Transcript:
        """From the bytes of whole events.

        Raises:
            EngineError: They are no stream of OpenAI's chunks.
        """
        transcript = cls()
        for event in SseReader().feed(payload):
            transcript.add(event)
        return transcript

    @property
    def is_plain(self) -> bool:
        """It is one answer of nothing but text, so that token ids (or the text) say all about it."""
        if any(index != _FIRST_CHOICE for index in self.choices):
            return False
        return all(path in _PLAIN for choice in self.choices.values() for path in (*choice.appended, *choice.once))

    @property
    def is_finished(self) -> bool:
        """Every answer in it has said why it ended."""
        return bool(self.choices) and all(("finish_reason",) in choice.once for choice in self.choices.values())

    def resume(self) -> Resume:
        """Where a worker shall go on; only for a plain one."""
        text = ""
        for path in (("delta", "content"), ("text",)):
            for choice in self.choices.values():
                text += str(choice.appended.get(path, ""))
        return Resume(
            last_seq=self.last_seq,
            text=text,
            token_ids=tuple(self._token_ids) if self._ids_known else (),
            id=str(self.envelope.get("id", "")),
            created=int(self.envelope.get("created", 0)),
            model=str(self.envelope.get("model", "")),
            system_fingerprint=self.envelope.get("system_fingerprint"),
        )

    def add(self, event: SseEvent) -> None:
        """Take in what the client was shown next."""
        self.last_seq = event.seq if event.seq is not None else self.last_seq + 1
        if event.data == DONE_MARK:
            self.done = True
            return
        chunk = read_chunk(event)
        if not self.envelope:
            self.envelope = {name: chunk[name] for name in ENVELOPE if name in chunk}
        self.usage = self.usage or chunk.get("usage")
        for choice in _choices(chunk):
            shown = self.choices.setdefault(int(choice.get("index", 0)), ShownChoice())
            shown.add(choice)
            has_text = any(value for path, value in _appended_atoms(choice) if path in _PLAIN)
            self._ids_known = self._ids_known and (bool(event.token_ids) or not has_text)
        self._token_ids += event.token_ids


class Replay:
    """A stream that begins anew, with what its client has seen left out."""

    def __init__(self, shown: Transcript) -> None:
        self._shown = shown
        self._again: dict[int, ShownChoice] = {}
        self._seq = shown.last_seq

    def take(self, event: SseEvent) -> bytes:
        """The client's bytes for one event of the new stream; empty when it brings nothing new.

        Raises:
            ResumeDivergedError: It says something else than what was shown.
            EngineError: It cannot be read.
        """
        if event.data == DONE_MARK:
            return b"" if self._shown.done else self._numbered(DONE_MARK)
        chunk = read_chunk(event)
        news = [new for choice in _choices(chunk) if (new := self._news(choice)) is not None]
        is_usage = chunk.get("usage") is not None and not self._shown.usage
        if not news and not (is_usage and not _choices(chunk)):
            return b""
        return self._numbered(msgspec.json.encode({**chunk, **self._shown.envelope, "choices": news}))

    def _news(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        index = int(choice.get("index", 0))
        shown = self._shown.choices.get(index) or ShownChoice()
        again = self._again.setdefault(index, ShownChoice())
        atoms: list[tuple[Path, Any]] = []
        for path, value in _appended_atoms(choice):
            new = _beyond(shown.appended.get(path), again.appended.get(path), value, path)
            if new:
                atoms.append((path, new))
        atoms += [(path, value) for path, value in _once_atoms(choice) if path not in shown.once]
        again.add(choice)
        if choice.get("finish_reason"):
            _demand_whole(shown, again)
        return _put_together(index, choice, atoms) if atoms else None

    def _numbered(self, data: bytes) -> bytes:
        self._seq += 1
        return render(SseEvent(data, seq=self._seq))


def read_chunk(event: SseEvent) -> dict[str, Any]:
    """The chunk in an event's data.

    Raises:
        EngineError: There is none.
    """
    try:
        return msgspec.json.decode(event.data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"an event of the stream cannot be read: {error}") from error


def _choices(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    return [choice for choice in chunk.get("choices") or [] if isinstance(choice, dict)]


def _appended_atoms(choice: dict[str, Any]) -> Iterator[tuple[Path, Appended]]:
    for name, value in (choice.get("delta") or {}).items():
        if isinstance(value, str) and name != "role" and value:
            yield ("delta", name), value
    if choice.get("text"):
        yield ("text",), choice["text"]
    for call in _calls(choice):
        arguments = (call.get("function") or {}).get("arguments")
        if arguments:
            yield ("call", call.get("index", 0), "arguments"), arguments
    for name, value in (choice.get("logprobs") or {}).items():
        if isinstance(value, list):
            yield ("logprobs", name), value


def _once_atoms(choice: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    if (choice.get("delta") or {}).get("role"):
        yield ("delta", "role"), choice["delta"]["role"]
    for call in _calls(choice):
        function = call.get("function") or {}
        if call.get("id") or function.get("name"):
            yield ("call", call.get("index", 0)), {**call, "function": {**function, "arguments": ""}}
    if choice.get("finish_reason"):
        yield ("finish_reason",), choice["finish_reason"]


def _calls(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return (choice.get("delta") or {}).get("tool_calls") or []


def _beyond(shown: Appended | None, before: Appended | None, value: Appended, path: Path) -> Appended | None:
    # What ``value``, which follows ``before``, adds to what was shown.
    if not shown:
        return value
    start = len(before or "")
    overlap = shown[start : start + len(value)]
    # Log-probabilities differ in their last digits from run to run; their number is what counts.
    if isinstance(value, str) and value[: len(overlap)] != overlap:
        raise ResumeDivergedError(f"another rustbee went on differently after {start} characters of {path[-1]}")
    return value[len(overlap) :]


def _demand_whole(shown: ShownChoice, again: ShownChoice) -> None:
    for path, value in shown.appended.items():
        if len(again.appended.get(path, "")) < len(value):
            raise ResumeDivergedError(f"another rustbee said less than was shown already of {path[-1]}")


def _put_together(index: int, choice: dict[str, Any], atoms: list[tuple[Path, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"index": index, "finish_reason": None}
    if "delta" in choice:
        made["delta"] = {}
    elif "text" in choice:
        made["text"] = ""
    calls: dict[Any, dict[str, Any]] = {}
    for path, value in atoms:
        match path:
            case ("delta", name):
                made["delta"][name] = value
            case ("logprobs", name):
                made.setdefault("logprobs", {})[name] = value
            case ("call", number):
                calls[number] = {**value, "function": {**value["function"], **_arguments(calls.get(number))}}
            case ("call", number, _):
                call = calls.setdefault(number, {"index": number, "function": {}})
                call["function"]["arguments"] = value
            case _:
                made[path[0]] = value
    if calls:
        made["delta"]["tool_calls"] = list(calls.values())
    return made


def _arguments(call: dict[str, Any] | None) -> dict[str, str]:
    return {"arguments": call["function"]["arguments"]} if call else {}
