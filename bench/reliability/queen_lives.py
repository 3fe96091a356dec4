"""The queen's lives: killed with -9 and started again in the same home, on the same port."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from .hive import Hive, HiveError
from .queen_http import NoAnswerError, RefusedError

PROBE: Final[dict[str, Any]] = {"modelcell": "probe", "class_path": "fake:tokens=1", "slots": 4}
ASK: Final = {"model": "probe", "messages": [{"role": "user", "content": "there?"}], "max_tokens": 1}
ASK_EVERY_S: Final = 0.01
BACK_WITHIN_S: Final = 30.0
ADOPTED_WITHIN_S: Final = 30.0


@dataclass(frozen=True)
class Death:
    """One death; times are monotonic seconds.

    Attributes:
        routed_ms: From the start of ``swarmesh queennode start`` to the first answer a rustbee gave through her.
    """

    killed_s: float
    routed_ms: float


def kill_and_start(hive: Hive) -> Death:
    """Kill her, start her, and ask until a request is routed.

    Raises:
        HiveError: She does not come back.
    """
    hive.kill_queen()
    killed_s = started_s = time.monotonic()
    process = hive.start_queen()
    try:
        while time.monotonic() - started_s < BACK_WITHIN_S:
            if _is_routed(hive):
                return Death(killed_s, 1000 * (time.monotonic() - started_s))
            time.sleep(ASK_EVERY_S)
    finally:
        process.wait(BACK_WITHIN_S)
    raise HiveError(f"nothing was routed within {BACK_WITHIN_S:g} s of the queen's start")


def _is_routed(hive: Hive) -> bool:
    try:
        hive.queen.post("/v1/chat/completions", ASK)
    except (NoAnswerError, RefusedError):
        return False
    return True


def engine_pids(hive: Hive, count: int) -> dict[str, int]:
    """The engine of every rustbee, once ``count`` of them are healthy again.

    Raises:
        HiveError: They are not.
    """

    def healthy() -> dict[str, int] | None:
        found = {
            row.rustbee_id: row.engine_pid for row in hive.rustbees() if row.status == "healthy" and row.engine_pid
        }
        return found if len(found) >= count else None

    return hive.until(healthy, ADOPTED_WITHIN_S, f"{count} rustbees adopted")
