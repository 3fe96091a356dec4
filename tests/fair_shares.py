"""How equal shares are."""

from __future__ import annotations

from collections.abc import Collection


def jain(shares: Collection[float]) -> float:
    """Jain's index: 1.0 when all shares are equal, one over their number when one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
