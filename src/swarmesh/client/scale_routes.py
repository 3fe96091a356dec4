"""Requests about how many rustbees each modelcell has; see `swarmesh.client.routes`."""

from __future__ import annotations

from typing import Any

import msgspec

from swarmesh.client.call import Call
from swarmesh.client.routes import BASE, reader, segment
from swarmesh.wire.spec import Backend
from swarmesh.wire.swarmscale import PauseChange, ScaleStatus, ScaleView


def swarmscale() -> Call[ScaleStatus]:
    """How many rustbees each modelcell has and may have, and what is under way."""
    return Call("GET", _path(), reader(ScaleStatus))


def swarmscale_of(modelcell: str) -> Call[ScaleView]:
    """The same of one modelcell.

    Raises:
        InvalidValueError: Its name is empty, which here does not mean all of them.
    """
    return Call("GET", f"{_path()}/{segment(modelcell, 'modelcell')}", reader(ScaleView))


def scale(
    modelcell: str = "",
    *,
    min: int | None = None,  # noqa: A002 - the field's name on the wire
    max: int | None = None,  # noqa: A002 - the field's name on the wire
    type: Backend | str | None = None,  # noqa: A002 - the field's name on the wire
    slots: int | None = None,
    context: int | None = None,
    cellalloc: int | None = None,
) -> Call[ScaleStatus]:
    """Say how many rustbees a modelcell may have, or (no name) every one without bounds of its own.

    What is left out stays as it was; at first that is ``min`` 0 and ``max`` 1. ``type``, ``slots``, ``context`` and
    ``cellalloc`` are what every rustbee gets that is started by itself; ``"auto"`` and 0 take back what was said.
    """
    wish = {"type": type, "slots": slots, "context": context, "cellalloc": cellalloc}
    said: dict[str, Any] = {"min": min, "max": max, "rustbee": _said(wish) or None}
    return Call("PUT", _path(modelcell), reader(ScaleStatus), body=msgspec.json.encode(_said(said)))


def unscale(modelcell: str = "") -> Call[ScaleStatus]:
    """Leave a modelcell alone again, or (no name) every one without bounds of its own; rustbees stay as they are."""
    return Call("DELETE", _path(modelcell), reader(ScaleStatus))


def pause_scaling(modelcell: str = "") -> Call[ScaleStatus]:
    """Start and stop nothing by itself, of one modelcell or (no name) of any; what is under way is finished."""
    return Call("POST", f"{_path()}/pause", reader(ScaleStatus), body=msgspec.json.encode(PauseChange(modelcell)))


def resume_scaling(modelcell: str = "") -> Call[ScaleStatus]:
    """Start and stop rustbees by itself again."""
    return Call("POST", f"{_path()}/resume", reader(ScaleStatus), body=msgspec.json.encode(PauseChange(modelcell)))


def _path(modelcell: str = "") -> str:
    return f"{BASE}/swarmscale" + (f"/{segment(modelcell, 'modelcell')}" if modelcell else "")


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
