"""How fast workers are, learned from what they have done: the ratio of two decayed sums, work over busy time.

A mean of ratios would believe one short task as much as one long one; the ratio of sums does not. What counts is the
whole worker while it is busy: several tasks at once get more done than one, but less than so many times more, so time
with ``n`` tasks counts ``n ** exponent`` times. The exponent is learned as well, see `swarmesh.core.costs`: without it
a worker would look fast for being full, and be filled for looking fast. Work is in token-equivalents: one is a token
written alone.

A task that ends brings its work and its own share of the worker's time, one of ``n`` in time with ``n`` tasks. Were its
work set against the time since the end before, a long answer would come all at once into a short time: the noise of
that was larger than most differences between machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

HALF_LIFE_WORK: Final = 8_000.0
"""After so much work a measurement counts half. Less follows changes sooner and believes single tasks more."""
PRIOR_WORK: Final = 64.0
"""Work that speaks for a worker being like the others before it has done any."""
PRIOR_SPEED: Final = 50.0
"""Of all workers before anything is known; only ratios matter then."""
CLASSES_PER_DOUBLING: Final = 4
"""Speeds are rounded to so many steps per factor of two: those that differ by less count as equal and take turns."""
RETURN_FADE: Final = 0.1
"""What remains of the evidence on a worker that was away or unused: it is the same machine, perhaps not as it was."""
MEANS_SHARE: Final = 1 / 16
"""How much one task moves a worker's means."""


@dataclass(slots=True)
class Pace:
    """What one worker has done, and in which time.

    Attributes:
        work: Decayed sum of work done, in token-equivalents.
        time_s: Decayed sum of the busy time it took.
        marked_ms: Up to when ``crowd_ms`` counts.
        rated: The speed it is compared by, in token-equivalents per second: that of `number`.
        number: The step that its speed is rounded to, see `speed_class`.
        is_stale: What it was rated by has changed since.
        rated_until_ms: When it is rated anew although nothing has changed; 0 for never.
        crowd_ms: Time of all its tasks together; what a task sees of it tells how many there were beside it.
        crowd_mean: Of the logarithm of how many tasks there were at once.
        rate_mean: Of the logarithm of how fast single tasks ran; None before the first.
        read_sum_ms: Predicted reading of all the prompts it was ever given, one after the other.
        read_known_ms: How much of that is surely behind it.
        read_last_ms: Before this it will not have read the prompt that it was given last.
    """

    work: float = 0.0
    time_s: float = 0.0
    marked_ms: int = 0
    rated: float = PRIOR_SPEED
    number: int = 0
    is_stale: bool = True
    rated_until_ms: int = 0
    crowd_ms: int = 0
    crowd_mean: float = 0.0
    rate_mean: float | None = None
    read_sum_ms: int = 0
    read_known_ms: int = 0
    read_last_ms: int = 0

    def mark(self, running: int, now_ms: int) -> None:
        """Count the time up to now; to be called before the number of running tasks changes."""
        self.crowd_ms += (now_ms - self.marked_ms) * running
        self.marked_ms = now_ms

    def done(self, work: float, share_s: float) -> None:
        """Take a finished task in, with its share of the time; who did not finish came nobody knows how far."""
        fade = 2.0 ** (-work / HALF_LIFE_WORK)
        self.work = self.work * fade + work
        self.time_s = self.time_s * fade + share_s

    def reads(self, reading_ms: int, until_ms: int, now_ms: int) -> int:
        """It is given a prompt while it reads others until ``until_ms``; until when it reads now."""
        if until_ms <= now_ms:
            until_ms, self.read_known_ms = now_ms, self.read_sum_ms
        self.read_sum_ms += reading_ms
        self.read_last_ms = now_ms + reading_ms
        return until_ms + reading_ms

    def has_read(self, mark_ms: int, at_ms: int, until_ms: int, now_ms: int) -> int:
        """Until when it reads, now that a task has ended whose prompt was read by ``at_ms``, 0 for nobody knows when.

        That prompt was the last in ``mark_ms`` of ``read_sum_ms``. Prompts are read in turn, so only those given later
        are left. Without this, errors would add up for as long as a worker is never idle, and in a burst they do.
        """
        left_ms = self.read_sum_ms - mark_ms
        if mark_ms <= self.read_known_ms or left_ms < 0:
            return until_ms  # No news: later ones were read before, or it has had nothing to read since.
        self.read_known_ms = mark_ms
        if not 0 < at_ms <= now_ms:
            return min(until_ms, now_ms + left_ms)
        at_ms += left_ms
        return at_ms if not left_ms or at_ms > self.read_last_ms else self.read_last_ms

    def differ(self, crowd: float, rate: float) -> tuple[float, float]:
        """How far a task is from this worker's means, in logarithms of the crowd and of the rate; moves the means."""
        if self.rate_mean is None:
            self.crowd_mean, self.rate_mean = crowd, rate
        crowd_by, rate_by = crowd - self.crowd_mean, rate - self.rate_mean
        self.crowd_mean += MEANS_SHARE * crowd_by
        self.rate_mean += MEANS_SHARE * rate_by
        return crowd_by, rate_by

    def fade(self) -> None:
        """Believe less of what is known."""
        self.work *= RETURN_FADE
        self.time_s *= RETURN_FADE
        self.is_stale = True

    def rate(self, speed: float, until_ms: int) -> None:
        """Compare it by this speed, rounded; see `rated_until_ms`."""
        self.number = speed_class(speed)
        self.rated = speed_of_class(self.number)
        self.rated_until_ms = until_ms
        self.is_stale = False

    @property
    def is_measured(self) -> bool:
        """Whether more speaks from the worker's own work than from the prior."""
        return self.work >= PRIOR_WORK and self.time_s > 0.0

    def speed(self, prior: float) -> float:
        """Token-equivalents per second, drawn to ``prior`` while little is known."""
        return (self.work + PRIOR_WORK) / (self.time_s + PRIOR_WORK / prior)


def speed_class(speed: float) -> int:
    """The step a speed is rounded to."""
    return round(math.log2(speed) * CLASSES_PER_DOUBLING)


def speed_of_class(number: int) -> float:
    """The speed that stands for a step."""
    return float(2.0 ** (number / CLASSES_PER_DOUBLING))
