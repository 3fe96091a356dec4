"""Why an agent does not take a request."""

from __future__ import annotations

from swarmesh.core.errors import ConflictError, SwarmeshError


class StaleEpochError(ConflictError):
    """A newer queen commands this rustbee."""

    code = "stale_epoch"


class StaleAttemptError(ConflictError):
    """A later attempt of this task, or the same one, runs here."""

    code = "stale_attempt"


class NotReadyError(SwarmeshError):
    """This rustbee does not serve at the moment."""

    code = "rustbee_not_ready"
    status = 503


class OverloadedError(SwarmeshError):
    """This rustbee has more requests at once than it has room for."""

    code = "rustbee_overloaded"
    status = 503


class CancelledTaskError(SwarmeshError):
    """Whoever asked for this task has left, or cancelled it."""

    code = "cancelled"
    status = 499
