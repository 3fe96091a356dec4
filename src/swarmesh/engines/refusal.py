"""What an engine's error answer means to us."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.errors import EngineError, ResumeDivergedError, SwarmeshError, TaskRefusedError
from swarmesh.core.way_on import way_on
from swarmesh.engines.errors import TaskFailedError

QUOTED_BYTES_MAX: Final = 200
TOO_LARGE: Final = "too large to process"
"""llama.cpp's words for a text to embed that is longer than a batch; it blames itself for it, with a 500."""


class _Said(msgspec.Struct, frozen=True):
    message: str
    code: str | int | None = None
    hint: str = ""
    param: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    error: _Said


def engine_error(status: int, body: bytes) -> SwarmeshError:
    """The error of an answer of 400 or above, its status kept.

    What the engine blames on the request, or cannot do at all (501), is the task's fault: any other engine of this
    model would say the same. The rest is the engine's.
    """
    said = _read(body)
    error: SwarmeshError
    if said.code == ResumeDivergedError.code:
        return ResumeDivergedError(said.message, hint=said.hint)
    if status >= 500 and TOO_LARGE in said.message:
        status = 400
    if status != 501 and (status >= 500 or status == 401):
        return EngineError(f"the engine answered {status}: {said.message}")
    if said.code == TaskFailedError.code:
        error = TaskFailedError(said.message, hint=said.hint)
    else:
        hint = said.hint or way_on(said.message)
        error = TaskRefusedError(f"the engine refused the task: {said.message}", hint=hint, param=said.param)
    error.status = status
    return error


def _read(body: bytes) -> _Said:
    try:
        return msgspec.json.decode(body, type=_Answer).error
    except msgspec.DecodeError:
        return _Said(body[:QUOTED_BYTES_MAX].decode("utf-8", "replace").strip() or "nothing")
