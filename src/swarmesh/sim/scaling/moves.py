"""Workers that came and went by the controller's will, and how often it changed its mind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

WINDOW_MS: Final = 600_000
"""In which changes of direction are counted."""


class MoveKind(StrEnum):
    """Why a model has more or fewer workers. Only up and down are directions."""

    UP = "up"
    DOWN = "down"
    WAKE = "wake"
    """The first worker of a model that has none, because somebody asks."""
    SLEEP = "sleep"
    """The last workers of a model that nobody asks for."""
    GIVE_UP = "give_up"
    """A worker that took too long to be ready."""
    EVICT = "evict"
    """A worker whose memory another model takes."""


class Move(NamedTuple):
    """Workers that came or went at one moment."""

    at_ms: int
    kind: MoveKind


def reversals(moves: Iterable[Move], from_ms: int = 0, until_ms: int | None = None) -> list[int]:
    """When a down followed an up or an up a down, both within that time; what else happens between does not count.

    A model that went to sleep begins anew.
    """
    times: list[int] = []
    last: MoveKind | None = None
    for move in moves:
        if move.at_ms < from_ms or (until_ms is not None and move.at_ms >= until_ms):
            continue
        if move.kind is MoveKind.SLEEP:
            last = None
        elif move.kind in (MoveKind.UP, MoveKind.DOWN):
            if last is not None and last is not move.kind:
                times.append(move.at_ms)
            last = move.kind
    return times


def most_within(times: Sequence[int], window_ms: int = WINDOW_MS) -> int:
    """The largest number of these times, in order, in any window."""
    most, start = 0, 0
    for end, at_ms in enumerate(times):
        while at_ms - times[start] >= window_ms:
            start += 1
        most = max(most, end - start + 1)
    return most
