"""Failures of the hivecomb that callers tell apart."""

from __future__ import annotations

from swarmesh.core.errors import StoreError


class StoreFullError(StoreError):
    """The hivecomb has no room to write; nothing of this operation was kept."""

    code = "hivecomb_full"
    status = 507
    default_hint = "Free disk space or prune finished tasks; writing works again by itself once there is room."


class StoreClosedError(StoreError):
    """The hivecomb is closed."""

    code = "hivecomb_closed"
    status = 503
