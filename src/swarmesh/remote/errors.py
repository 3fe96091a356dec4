"""What can go wrong on the other host, and what an error nobody foresaw is told as."""

from __future__ import annotations

import errno
from typing import Final

from swarmesh.core.errors import BadInputError, InternalError, SwarmeshError

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class HostDiskFullError(SwarmeshError):
    """The host's disk has too little space."""

    code = "host_disk_full"
    status = 507
    default_hint = "Free some space there, or give the file to another host."


class ModelDigestMismatchError(SwarmeshError):
    """The file that arrived is not the file that was promised."""

    code = "model_digest_mismatch"
    status = 502
    default_hint = "Nothing was kept. Copy it again; if that does not help, the file at its source is damaged."


class TransferError(SwarmeshError):
    """The file did not arrive whole."""

    code = "transfer_failed"
    status = 502
    default_hint = "Start it again: what has arrived is kept, and it goes on from there."


class UnknownCallError(BadInputError):
    """The host's Swarmesh does not know what it was asked to do."""

    code = "unknown_call"
    default_hint = "'swarmesh hosts add' of the same address brings it to the queennode's version."


class HostFaultError(InternalError):
    """Something went wrong inside Swarmesh on the host."""

    default_hint = ""


class TooManyCallsError(SwarmeshError):
    """The host works on as many calls of this session as it may."""

    code = "too_many_calls"
    status = 503


def as_foreseen(error: BaseException, doing: str) -> SwarmeshError:
    """The error to tell: itself when it has a name, else one that says what was being done."""
    if isinstance(error, SwarmeshError):
        return error
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return HostDiskFullError(f"{doing} failed: {error}")
    hint = "" if isinstance(error, OSError) else "This is a fault in Swarmesh; the host goes on."
    return HostFaultError(f"{doing} failed: {type(error).__name__}: {error}", hint=hint)
