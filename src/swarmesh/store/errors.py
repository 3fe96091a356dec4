"""Failures of the hivecomb that callers tell apart."""

from __future__ import annotations

from typing import Final

from swarmesh.core.errors import StoreError

RETRY_AFTER_FULL_S: Final = 30
"""How soon a refused write is worth another try: a person or a cleaner has to make room first."""


class StoreFullError(StoreError):
    """The hivecomb has no room to write; nothing of this operation was kept."""

    code = "hivecomb_full"
    status = 507
    default_hint = (
        "Free space on the disk of the hivecomb; writing works again by itself, no restart is needed. "
        "Until then requests that need not be kept are served as ever."
    )

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        param: str | None = None,
        retry_after_s: int | None = RETRY_AFTER_FULL_S,
    ) -> None:
        super().__init__(message, hint=hint, param=param, retry_after_s=retry_after_s)


class StoreClosedError(StoreError):
    """The hivecomb is closed."""

    code = "hivecomb_closed"
    status = 503
