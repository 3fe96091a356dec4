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
