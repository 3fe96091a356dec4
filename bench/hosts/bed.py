"""The tests' bed of machines, as far as these measurements use it: namespaces with an address and an sshd each."""

from __future__ import annotations

import importlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol

from bench.relay.installs import REPOSITORY

TESTS: Final = REPOSITORY / "tests"


class Machine(Protocol):
    """One machine; a program run by `inside` is seen by nobody's SSH."""

    name: str
    address: str
    identity: Path

    @property
    def pid(self) -> int:
        """Of its first process, as it is seen from here."""

    def cut(self) -> None:
        """Pull the cable; nobody is told."""

    def mend(self) -> None:
        """Put it back."""

    def power_off(self) -> None:
        """Ends everything there."""

    def inside(self, *argv: str) -> str:
        """What a program prints there."""

    def files(self) -> list[str]:
        """Everything in the login user's home there."""

    def processes(self) -> dict[int, str]:
        """Command lines by pid, without sshd's own."""

    def listening(self) -> set[int]:
        """TCP ports that are open there, on whatever address."""


class Bed(Protocol):
    """Where machines are made, and ended with it."""

    def machine(self) -> Machine:
        """A machine that is on."""


def unavailable() -> str:
    """Why there can be no machines here; empty when there can."""
    reason: str = _module().bed_unavailable()
    return reason


def bed() -> AbstractContextManager[Bed]:
    """A bed while the block lasts."""
    made: AbstractContextManager[Bed] = _module().host_bed()
    return made


def login_home() -> str:
    """The login user's home on every machine."""
    home: str = _module().HOME
    return home


def _module() -> Any:
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))  # The tests are no package.
    return importlib.import_module("host_bed")
