"""The time as scripts are told it: the wall clock where the queen is."""

from __future__ import annotations

import time
from typing import Final, TypeAlias

Moment: TypeAlias = dict[str, int | float | str]

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def moment(unix_s: float) -> Moment:
    """What ``now()`` answers in a script at that time, in this machine's time zone."""
    local = time.localtime(unix_s)
    return {
        "hour": local.tm_hour,
        "minute": local.tm_min,
        "weekday": WEEKDAYS[local.tm_wday],
        "day": local.tm_mday,
        "month": local.tm_mon,
        "year": local.tm_year,
        "unix_s": unix_s,
    }
