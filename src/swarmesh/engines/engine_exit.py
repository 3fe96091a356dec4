"""How an engine's process ended, and whose doing that was."""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import Final

import msgspec

from swarmesh.core.last_words import with_last_words

SHELL_SIGNAL_BASE: Final = 128
"""A shell that wraps an engine reports the signal that ended it as an exit code above this."""
OTHERS_SIGNALS: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""With these somebody ends a process: a person, a service, the kernel short of memory. It did not fail by itself."""


class EndCode(StrEnum):
    """Why an engine is no more. Only a crash counts against the task that ran."""

    CRASHED = "engine_crashed"
    DIED = "engine_died"
    STUCK = "engine_stuck"


class EngineExit(msgspec.Struct, frozen=True):
    """The end of a process.

    Attributes:
        code: ``engine_crashed`` when it ended by itself and not as it should, else ``engine_died``.
        message: How it ended, for people, with its last words.
    """

    code: EndCode
    message: str


def read_exit(pid: int, returncode: int, last_words: str) -> EngineExit:
    """What an exit code, as ``subprocess`` counts them (a signal is negative), means."""
    signum = -returncode if returncode < 0 else returncode - SHELL_SIGNAL_BASE
    ended_by_others = returncode == 0 or signum in OTHERS_SIGNALS
    message = with_last_words(describe_exit(pid, returncode), last_words)
    return EngineExit(EndCode.DIED if ended_by_others else EndCode.CRASHED, message)


def describe_exit(pid: int, code: int) -> str:
    """One sentence about an exit code."""
    if code >= 0:
        return f"the engine (pid {pid}) exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"the engine (pid {pid}) was killed by signal {-code} ({name})"
