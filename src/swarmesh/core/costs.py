"""What is learned of one model's tasks on all its workers: how dear reading is, how long answers are, what is fast."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from swarmesh.core.ledger import DEFAULT_OUTPUT_TOKENS, PREFILL_WEIGHT
from swarmesh.core.speed import CLASSES_PER_DOUBLING, PRIOR_SPEED, Pace

PREFILL_WEIGHTS: Final = (0.002, 1.0)
"""Bounds of what is learned in place of `PREFILL_WEIGHT`."""
CROWD_EXPONENT: Final = 0.5
"""Before anything is known. 0: an engine gets no more done with many tasks at once; 1: each runs as it would alone."""
CROWD_PRIOR: Final = 4.0
_RATE_PRIOR: Final = (CROWD_EXPONENT - 1.0) * CROWD_PRIOR
PRIOR_READ_TOKENS: Final = 100.0
"""What speaks for `PREFILL_WEIGHT`: less than one prompt. On a GPU it is far too high, and until that is known every
prompt that was read makes its worker look fast."""
PRIOR_TASKS: Final = 4.0
TASKS_HALF_LIFE: Final = 200.0
_FADE: Final = 0.5 ** (1 / TASKS_HALF_LIFE)


class Costs:
    """Ratios of decayed sums, as in `swarmesh.core.speed`.

    Attributes:
        prior_speed: What speed is usual among the model's workers.
        prefill_weight: Token-equivalents that reading one token of a prompt takes.
        output_tokens: How long an answer is on the average.
        crowd_exponent: How the work done in a time grows with the number of tasks at once: as its power of this.
    """

    def __init__(self) -> None:
        self.prior_speed = PRIOR_SPEED
        self.prefill_weight = PREFILL_WEIGHT
        self.output_tokens = float(DEFAULT_OUTPUT_TOKENS)
        self.crowd_exponent = CROWD_EXPONENT
        self._read_work = PREFILL_WEIGHT * PRIOR_READ_TOKENS
        self._read_tokens = PRIOR_READ_TOKENS
        self._written_tokens = PRIOR_TASKS * DEFAULT_OUTPUT_TOKENS
        self._answers = PRIOR_TASKS
        self._crowd_rate = _RATE_PRIOR
        self._crowd_square = CROWD_PRIOR
        self._learned = 0
        self._median_due = 1

    def read(self, tokens: float, seconds: float, speed: float) -> None:
        """A worker of that speed read so many tokens, and nothing before them."""
        self._read_work = self._read_work * _FADE + seconds * speed
        self._read_tokens = self._read_tokens * _FADE + tokens
        least, most = PREFILL_WEIGHTS
        self.prefill_weight = min(most, max(least, self._read_work / self._read_tokens))

    def wrote(self, tokens: int) -> None:
        """An answer was so long."""
        self._written_tokens = self._written_tokens * _FADE + tokens
        self._answers = self._answers * _FADE + 1.0
        self.output_tokens = self._written_tokens / self._answers

    def ran(self, pace: Pace, crowd: float, rate: float) -> None:
        """A task ran at this rate while so many were there.

        Compared with other tasks of the same worker only: a line through the differences from each worker's means, so
        that a fast worker that is always full is not taken for a sign that being full makes fast.
        """
        crowd_by, rate_by = pace.differ(math.log(crowd), math.log(rate))
        # What was learned fades, what was assumed does not.
        self._crowd_rate = (self._crowd_rate - _RATE_PRIOR) * _FADE + _RATE_PRIOR + crowd_by * rate_by
        self._crowd_square = (self._crowd_square - CROWD_PRIOR) * _FADE + CROWD_PRIOR + crowd_by * crowd_by
        self.crowd_exponent = min(1.0, max(0.0, 1.0 + self._crowd_rate / self._crowd_square))

    def compare(self, paces: Iterable[Pace], workers: int) -> bool:
        """Look anew, now and then, at what speed is usual; True when it is another one than before."""
        self._learned += 1
        if self._learned < self._median_due:
            return False
        self._learned, self._median_due = 0, max(8, workers // 2)
        speeds = sorted(pace.speed(self.prior_speed) for pace in paces if pace.is_measured)
        if not speeds:
            return False
        median = speeds[len(speeds) // 2]
        # Not for every last bit: each change looks at every worker again.
        if abs(math.log2(median / self.prior_speed)) * CLASSES_PER_DOUBLING < 1:
            return False
        self.prior_speed = median
        return True
