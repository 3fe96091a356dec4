"""How many workers a model may have."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.errors import InvalidValueError

WORKERS_MAX: Final = 1_000


class Bounds(msgspec.Struct, frozen=True):
    """Set by the owner; the controller never leaves them.

    Attributes:
        min_workers: Kept running also when nobody asks; 0 lets the model go when it is idle.
        max_workers: Never more than so many.
        paused: Nothing is started or stopped for this model by itself, until it is resumed.
    """

    min_workers: int = 0
    max_workers: int = 1
    paused: bool = False


def checked(bounds: Bounds) -> Bounds:
    """The same bounds.

    Raises:
        InvalidValueError: They exclude each other, or are beyond what there can be.
    """
    if not 0 <= bounds.min_workers <= bounds.max_workers <= WORKERS_MAX or bounds.max_workers < 1:
        raise InvalidValueError(
            f"no model can have at least {bounds.min_workers} and at most {bounds.max_workers} rustbees",
            hint=f"Give 0 <= min <= max and 1 <= max <= {WORKERS_MAX}.",
            param="max",
        )
    return bounds
