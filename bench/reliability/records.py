"""The last result of every scenario, kept beside the harness: the page is written from runs of several days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from .result import Outcome

FILE: Final = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Record:
    """What one scenario brought, with which command, when and on what."""

    name: str
    about: str
    command: str
    machine: dict[str, str]
    outcome: Outcome


def load() -> dict[str, Record]:
    """By scenario; empty before the first."""
    if not FILE.exists():
        return {}
    records = msgspec.json.decode(FILE.read_bytes(), type=list[Record])
    return {record.name: record for record in records}


def keep(records: Sequence[Record], order: Sequence[str]) -> list[Record]:
    """Put these in the place of the older ones and return all there are, in the order of the scenarios."""
    known = {**load(), **{record.name: record for record in records}}
    kept = [known[name] for name in order if name in known]
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    return kept
