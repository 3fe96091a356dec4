"""Numbers as people read them: the same in a sentence as in the table beside it."""

from __future__ import annotations

from typing import Final

DIGITS: Final = 4
"""That count; whole numbers are said whole."""
_WHOLE_FROM: Final = 10.0 ** (DIGITS - 1)
_ORDINARY_MAX: Final = 1e15
"""From here on all digits would say less than an exponent does."""


def figure(value: float) -> str:
    """``0.8``, ``40``, ``2435``, ``81920``: four digits, or all before the point.

    Only what is vast or tiny has an exponent.
    """
    return f"{value:.0f}" if _WHOLE_FROM <= abs(value) < _ORDINARY_MAX else f"{value:.{DIGITS}g}"
