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

    def reaches(self, shown: ShownChoice) -> bool:
        """Whether it has as much of everything as another."""
        return all(len(self.appended.get(path, "")) >= len(value) for path, value in shown.appended.items())


class Transcript:
    """A stream as its client saw it.

    Attributes:
        last_seq: Number of the last event.
        envelope: ``id``, ``created``, ``model`` and ``system_fingerprint`` of its chunks.
        choices: By index.
        usage: As it was told.
        done: The end mark was sent.
        failed: An error was told, after which nothing follows.
    """

    def __init__(self) -> None:
        self.last_seq = 0
        self.envelope: dict[str, Any] = {}
        self.choices: dict[int, ShownChoice] = {}
        self.usage: dict[str, Any] | None = None
        self.done = False
        self.failed = False
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
        created, fingerprint = self.envelope.get("created"), self.envelope.get("system_fingerprint")
        return Resume(
            last_seq=self.last_seq,
            text=text,
            token_ids=tuple(self._token_ids) if self._ids_known else (),
            id=str(self.envelope.get("id", "")),
            created=int(created) if isinstance(created, int | float) else 0,
            model=str(self.envelope.get("model", "")),
            system_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        )

    def add(self, event: SseEvent) -> None:
        """Take in what the client was shown next.

        Raises:
            EngineError: It is no chunk.
        """
        self.last_seq = event.seq if event.seq is not None else self.last_seq + 1
        if event.data == DONE_MARK:
            self.done = True
            return
        chunk = read_chunk(event)
        if not self.envelope:
            self.envelope = {name: chunk[name] for name in ENVELOPE if name in chunk}
        self.failed = self.failed or is_error(chunk)
        choices = _choices(chunk)
        for choice in choices:
            shown = self.choices.setdefault(_index(choice), ShownChoice())
            shown.add(choice)
            has_text = any(path in _PLAIN for path, _ in _appended_atoms(choice))
            self._ids_known = self._ids_known and (bool(event.token_ids) or not has_text)
        self._token_ids += event.token_ids
        # Some servers tell it with every chunk; only the last one is the answer's.
        if _table(chunk.get("usage")) and (not choices or self.is_finished):
            self.usage = chunk["usage"]


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
            for index, shown in self._shown.choices.items():
                _demand_whole(shown, self._of(index))
            return b"" if self._shown.done else self._numbered(DONE_MARK)
        chunk = read_chunk(event)
        if is_error(chunk):
            return self._numbered(event.data)
        choices = _choices(chunk)
        news = [new for choice in choices if (new := self._news(choice)) is not None]
        is_usage = bool(_table(chunk.get("usage"))) and self._shown.usage is None
        if not news and not (is_usage and not choices):
            return b""
        return self._numbered(msgspec.json.encode({**chunk, **self._shown.envelope, "choices": news}))

    def _of(self, index: int) -> ShownChoice:
        return self._again.setdefault(index, ShownChoice())

    def _news(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        index = _index(choice)
        shown, again = self._shown.choices.get(index) or ShownChoice(), self._of(index)
        once = [(path, value) for path, value in _once_atoms(choice) if path not in shown.once]
        is_beyond = again.reaches(shown)
        cut = [
            (path, new)
            for path, value in _appended_atoms(choice)
            if (new := _beyond(shown.appended.get(path), again.appended.get(path), value, path))
        ]
        again.add(choice)
        if choice.get("finish_reason"):
            _demand_whole(shown, again)
        if is_beyond and len(once) == len(list(_once_atoms(choice))):
            return choice  # Nothing of it was shown: it stays as it is, with whatever is not known here.
        return _put_together(index, choice, cut + once) if cut or once else None

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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(f"an event of the stream cannot be read: {error}") from error


def is_error(chunk: dict[str, Any]) -> bool:
    """Whether a stream says with this chunk that it has failed."""
    return chunk.get("error") is not None


# An engine may send any JSON. What has not the shape it should have is passed over: nothing can be said about it.


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _index(table: dict[str, Any]) -> int:
    index = table.get("index")
    return index if isinstance(index, int) else 0


def _choices(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    return _tables(chunk.get("choices"))


def _calls(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return _tables(_table(choice.get("delta")).get("tool_calls"))


def _appended_atoms(choice: dict[str, Any]) -> Iterator[tuple[Path, Appended]]:
    for name, value in _table(choice.get("delta")).items():
        if isinstance(value, str) and name != "role" and value:
            yield ("delta", name), value
    if isinstance(text := choice.get("text"), str) and text:
        yield ("text",), text
    for call in _calls(choice):
        arguments = _table(call.get("function")).get("arguments")
        if isinstance(arguments, str) and arguments:
            yield ("call", _index(call), "arguments"), arguments
    for name, value in _table(choice.get("logprobs")).items():
        if isinstance(value, list) and value:
            yield ("logprobs", name), value


def _once_atoms(choice: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    delta = _table(choice.get("delta"))
    if delta.get("role"):
        yield ("delta", "role"), delta["role"]
    for call in _calls(choice):
        function = _table(call.get("function"))
        if call.get("id") or function.get("name"):
            yield ("call", _index(call)), {**call, "function": {**function, "arguments": ""}}
    if choice.get("finish_reason"):
        yield ("finish_reason",), choice["finish_reason"]


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
    if not again.reaches(shown):
        raise ResumeDivergedError("another rustbee said less than was shown already")


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
