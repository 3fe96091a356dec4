"""What `swarmesh doctor` looks at: this machine, and whether a queen answers. Nothing is changed."""

from __future__ import annotations

from typing import Final

from swarmesh.cli.screen import duration
from swarmesh.client import Swarmesh
from swarmesh.client.endpoint import LentHomeError
from swarmesh.config.home import Home
from swarmesh.core.errors import QueenUnreachableError, SwarmeshError
from swarmesh.hosts.machine_checks import Verdict, check_machine, fact
from swarmesh.wire.hosts import CheckView

QUEEN_TIMEOUT_S: Final = 3.0


def examine(home: Home) -> list[CheckView]:
    """All findings, in the order they are shown."""
    return [*check_machine(home), _queen()]


def _queen() -> CheckView:
    try:
        with Swarmesh(timeout_s=QUEEN_TIMEOUT_S) as swarm:
            health = swarm.health()
    except LentHomeError as error:
        return fact("queennode", Verdict.INFO, error.message, error.hint)
    except QueenUnreachableError as error:
        return fact("queennode", Verdict.INFO, error.message, "swarmesh up")
    except SwarmeshError as error:
        return fact("queennode", Verdict.FAIL, error.message, error.hint)
    bees = sum(health.rustbees.values())
    found = f"{health.status} at {health.url}, {bees} rustbees, up for {duration(health.uptime_s)}"
    return fact("queennode", Verdict.OK, found)
