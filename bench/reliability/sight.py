"""What one client saw of one answer, and how it differs from what it should have seen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Final

ANSWER: Final = "0"
"""Channel of the only, or first, answer."""
ON_ITS_WAY_S: Final = 0.002
"""What comes so soon after a fault was there before it; the pause before it was the striker's own."""
USAGE: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(frozen=True)
class Silence:
    """Time without a token after a fault.

    Attributes:
        index: Tokens the client had when the answer stood still.
        gap_ms: The longest silence.
        recovered_ms: From the fault to the end of the first silence of at least half that length: what was on its way
            when the fault came is still shown, and a machine that is busy may pause an answer later on.
    """

    index: int
    gap_ms: float
    recovered_ms: float


@dataclass
class Sight:
    """A client's side of a stream; times are monotonic seconds.

    Attributes:
        texts: The pieces of each channel in order. ``0`` is the first answer, ``1`` the second of ``n``, and
            ``0/tool/0`` the name and arguments of the first tool call of the first answer.
        moments_s: When each piece came.
        seqs: Numbers of the events, where the surface shows them.
        ids_shown: Token ids the events carried.
        finish_reasons: By channel.
        usage: Of the whole answer.
        error: Code of the error the stream ended in; ``cut`` when it ended without any end.
        odd: Whatever no well-behaved stream does, in words.
    """

    rustbee_id: str = ""
    job_id: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)
    moments_s: list[float] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    ids_shown: int = 0
    finish_reasons: dict[str, str] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    error: str = ""
    odd: list[str] = field(default_factory=list)
    ended_s: float | None = None

    @property
    def count(self) -> int:
        """Pieces so far."""
        return len(self.moments_s)

    @property
    def text(self) -> str:
        """The first answer."""
        return "".join(self.texts.get(ANSWER, []))

    @property
    def all_text(self) -> dict[str, str]:
        """Every channel as one text."""
        return {channel: "".join(pieces) for channel, pieces in self.texts.items()}

    @property
    def whole(self) -> bool:
        """Whether it ended as an answer does."""
        return bool(self.finish_reasons) and not self.error

    def add(self, text: str, channel: str = ANSWER) -> None:
        """A piece has come."""
        self.moments_s.append(time.monotonic())
        self.texts.setdefault(channel, []).append(text)

    def end(self, error: str = "") -> Sight:
        """The stream is over."""
        self.error = error
        self.ended_s = time.monotonic()
        return self

    def take_usage(self, usage: dict[str, int | None]) -> None:
        """The usage came."""
        if self.usage:
            self.odd.append("usage twice")
        self.usage = {name: usage.get(name) or 0 for name in USAGE}

    def silence(self, since_s: float, until_s: float | None = None) -> Silence | None:
        """What followed a fault, before the next one at ``until_s``; None when nothing came any more."""
        moments = [*self.moments_s, *([self.ended_s] if self.ended_s is not None and self.whole else [])]
        steps = [
            (index, ended - began, ended - since_s)
            for index, (began, ended) in enumerate(pairwise(moments), start=1)
            if ended > since_s + ON_ITS_WAY_S and (until_s is None or began < until_s)
        ]
        if not steps:
            return None
        longest_s = max(length_s for _, length_s, _ in steps)
        index, _, recovered_s = next(step for step in steps if step[1] >= longest_s / 2)
        return Silence(index, longest_s * 1000, recovered_s * 1000)


@dataclass(frozen=True)
class Difference:
    """How a broken run differs from the unbroken one; ``lost`` and ``doubled`` count pieces, about a token each."""

    identical: bool
    usage_equal: bool
    lost: int
    doubled: int
    odd: tuple[str, ...]


def difference(seen: Sight, unbroken: Sight) -> Difference:
    """Compare text, ends, usage and numbering."""
    same = seen.all_text == unbroken.all_text and seen.finish_reasons == unbroken.finish_reasons
    lost, doubled = _gaps_and_repeats(seen.seqs)
    for channel, pieces in unbroken.texts.items():
        channel_lost, channel_doubled = _aligned(seen.texts.get(channel, []), pieces)
        lost, doubled = max(lost, channel_lost), max(doubled, channel_doubled)
    odd = [*seen.odd, *numbering(seen.seqs)]
    return Difference(
        identical=same and seen.whole and not odd,
        usage_equal=seen.usage == unbroken.usage,
        lost=lost,
        doubled=doubled,
        odd=tuple(odd),
    )


def numbering(seqs: list[int]) -> list[str]:
    """What is wrong with the numbers of events; they are 1, 2, 3 … without a gap."""
    if seqs == list(range(1, len(seqs) + 1)):
        return []
    lost, doubled = _gaps_and_repeats(seqs)
    return [f"event numbers: {lost} missing, {doubled} repeated"]


def _gaps_and_repeats(seqs: list[int]) -> tuple[int, int]:
    known = set(seqs)
    return max(known, default=0) - len(known), len(seqs) - len(known)


def _aligned(seen: list[str], expected: list[str]) -> tuple[int, int]:
    if "".join(seen) == "".join(expected):
        return 0, 0  # Where pieces are parted differently nothing is lost.
    lost = doubled = 0
    for kind, expected_from, expected_to, seen_from, seen_to in SequenceMatcher(
        None, expected, seen, autojunk=False
    ).get_opcodes():
        if kind != "equal":
            lost += expected_to - expected_from
            doubled += seen_to - seen_from
    return lost, doubled
