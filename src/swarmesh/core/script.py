"""What a policy script may decide, as the core sees it: a function of facts, which may fail.

The core does not know what a script is written in or where it runs. It hands plain facts over and gets an opinion back;
an opinion that does not come, comes late or makes no sense is a `ScriptFailedError`, and the built-in rule decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from swarmesh.core.errors import SwarmeshError

Fact = str | int | float | bool | None | Sequence[str]
Facts = Mapping[str, Fact]
"""By name, with the unit in the name; only what a script can be given as plain values."""


class Hook(StrEnum):
    """The functions a script may define."""

    ADMIT = "admit"
    SCORE = "score"
    PLACE = "place"
    SCALE = "scale"


class ScriptFailedError(SwarmeshError):
    """A script gave no usable opinion: it took too long or too much, raised an error, or answered something else.

    Attributes:
        hook: What failed, if that is not what was asked now: a late answer turns out to be none at the next question.
    """

    code = "policy_script_failed"
    default_hint = "'swarmesh policy check FILE' looks for mistakes; the built-in policy decides meanwhile."
    hook: Hook | None = None


class ScriptAwayError(ScriptFailedError):
    """The script cannot be asked just now: its process is being started. Says nothing about the script itself."""

    code = "policy_script_away"


class ScriptLateError(ScriptAwayError):
    """The script was asked, and has not answered in time; whose fault that is will be known when it does."""

    code = "policy_script_late"


class Script(Protocol):
    """A user's script. Every call is bounded in time and memory by whoever runs it, and may raise `ScriptFailedError`.

    Attributes:
        name: For people: its file's name.
        hooks: What it defines; nothing else is called.
    """

    name: str
    hooks: frozenset[Hook]

    def admit(self, task: Facts) -> str | None:
        """Why the task is not let in; None lets it in."""

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        """One number for each worker in order: the highest is chosen, None keeps the task from it."""

    def place(self, model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        """One number for each host in order: the highest is chosen, None keeps the model from it."""

    def scale(self, model: Facts, stats: Facts) -> int | None:
        """How many workers the model ought to have; None leaves it to the built-in rule. Bounds hold all the same."""
