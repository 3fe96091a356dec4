"""Recorded load: Mooncake's JSON lines and Azure's CSV columns, as requests."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from swarmesh.core.errors import BadInputError
from swarmesh.sim.routing.engine import EngineModel
from swarmesh.sim.routing.request import BLOCK_TOKENS, CONTEXT_TOKENS, Request, Text

LINES_MAX: Final = 200_000
LINE_CHARS_MAX: Final = 1_000_000
CELL_CHARS_SHOWN: Final = 40
MOONCAKE_BLOCK_TOKENS: Final = 512
AZURE_COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_PER_BLOCK: Final = MOONCAKE_BLOCK_TOKENS // BLOCK_TOKENS
_GZIP: Final = b"\x1f\x8b"
_FACTOR, _MASK = 0x9E3779B97F4A7C15, (1 << 60) - 1
"""The factor is odd: neighbouring ids become names far apart, and no two the same."""


class TraceError(BadInputError):
    """The trace cannot be read."""

    code = "bad_trace"
    default_hint = (
        "Mooncake: a JSON object per line; Azure: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens."
    )


class MooncakeLine(msgspec.Struct, frozen=True):
    """One line of a Mooncake trace: ms, tokens, and names of blocks of 512 tokens, each implying those before it."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def read_trace(path: Path, *, requests: int = 0) -> list[Request]:
    """The requests of a trace in order of their time, which starts at 0; CSV when the name ends so.

    Lengths are cut to the context; prompts of an Azure trace have nothing in common. ``requests`` is how many of the
    first lines are taken, 0 for all.

    Raises:
        TraceError: The file cannot be read, or a line is not as it should be; its number is named.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            bounded = _bounded(path, iter(partial(lines.readline, LINE_CHARS_MAX + 1), ""))
            read = _azure(path, bounded) if path.suffix.lower() == ".csv" else _mooncake(path, bounded)
            found = list(islice(read, requests or None))
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        # Where in its piece of the file the decoder stood says nothing; what starts as gzip does is known by that.
        raise TraceError(f"{path} is no UTF-8 text", hint=_hint_of_bytes(error.object)) from error
    if not found:
        raise TraceError(f"{path} has no requests")
    found.sort(key=lambda request: request.at_ms)
    first_ms = found[0].at_ms
    return [
        msgspec.structs.replace(request, number=number, at_ms=request.at_ms - first_ms)
        for number, request in enumerate(found)
    ]


def rescale(
    requests: Sequence[Request], *, speeds: Sequence[float], load_ratio: float, model: EngineModel | None = None
) -> list[Request]:
    """The same requests, nearer together or further apart, so that they ask for so much of what the fleet can do."""
    engine = model or EngineModel()
    work_ms = sum(engine.work_ms(request.prompt_tokens, request.output_tokens) for request in requests)
    factor = work_ms / (load_ratio * sum(speeds)) / max(1.0, requests[-1].at_ms)
    return [msgspec.structs.replace(request, at_ms=request.at_ms * factor) for request in requests]


def _bounded(path: Path, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if number > LINES_MAX:
            raise TraceError(f"{path} has more than {LINES_MAX:,} lines", hint="--requests takes the first ones only.")
        if len(line) > LINE_CHARS_MAX:
            raise TraceError(f"{path}, line {number}: longer than {LINE_CHARS_MAX:,} characters")
        yield line


def _mooncake(path: Path, lines: Iterator[str]) -> Iterator[Request]:
    decoder = msgspec.json.Decoder(MooncakeLine)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise TraceError(f"{path}, line {number}: {error}") from error
        names = tuple(_name(block * _PER_BLOCK + part) for block in entry.hash_ids for part in range(_PER_BLOCK))
        yield _request(path, number, entry.timestamp, entry.input_length, entry.output_length, names)


def _hint_of_bytes(data: bytes) -> str:
    return "It is compressed: unpack it first, as with gunzip." if data.startswith(_GZIP) else ""


def _name(block: int) -> int:
    return (block * _FACTOR) & _MASK


def _azure(path: Path, lines: Iterator[str]) -> Iterator[Request]:
    rows = csv.reader(lines)
    columns = next(rows, [])
    if not set(AZURE_COLUMNS) <= set(columns):
        raise TraceError(f"{path}, line 1: the columns are {', '.join(columns) or 'none'}")
    rng = Random(AZURE_COLUMNS[0])  # Names that no two prompts have in common; which, does not matter.
    places = [columns.index(name) for name in AZURE_COLUMNS]
    for row in rows:
        if not row:
            continue
        try:
            at, prompt, output = (row[place] for place in places)
            stamp = datetime.fromisoformat(at)
            sizes = int(prompt), int(output)
        except IndexError as error:
            raise TraceError(f"{path}, line {rows.line_num}: {len(row)} of {len(columns)} columns are there") from error
        except ValueError as error:
            found = ", ".join(row[place][:CELL_CHARS_SHOWN] for place in places)
            words = f"{path}, line {rows.line_num}: {found!r} is not a time and two whole numbers of tokens"
            raise TraceError(words, hint="Such as 2023-11-16 18:15:46.680590,374,44.") from error
        at_ms = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp() * 1_000
        yield _request(path, rows.line_num, at_ms, *sizes, Text(rng).blocks(min(sizes[0], CONTEXT_TOKENS)))


def _request(path: Path, line: int, at_ms: float, prompt: int, output: int, names: tuple[int, ...]) -> Request:
    if prompt < 1 or output < 0 or not at_ms >= 0:
        words = f"{path}, line {line}: a prompt of {prompt:,} tokens and an answer of {output:,}, at {at_ms:,.0f} ms"
        raise TraceError(words, hint="A prompt has 1 token at least, and neither an answer nor a time is below 0.")
    prompt = min(prompt, CONTEXT_TOKENS - 1)
    blocks = names[: prompt // BLOCK_TOKENS]
    return Request(
        number=0,
        at_ms=at_ms,
        prompt_tokens=prompt,
        output_tokens=min(max(1, output), CONTEXT_TOKENS - prompt),
        blocks=blocks,
        answered=blocks,  # What an answer is called in the prompt that quotes it, no trace says.
    )
