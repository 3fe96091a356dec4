"""A user's own class as an engine (R-25): loading it, and turning what it yields into tokens.

The class is any with an async generator ``foragexec(self, task)`` that yields text, bytes or JSON values. It may have
``async def start(self)`` and ``async def stop(self)``, ``slots`` (tasks at once) and ``media_type`` (of its bytes).
"""

from __future__ import annotations

import base64
import importlib
import inspect
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from swarmesh.core.errors import EngineStartError, SwarmeshError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.errors import TaskFailedError
from swarmesh.engines.openai_text import Piece, TextRequest
from swarmesh.engines.task import task_of
from swarmesh.wire.flow import ExecuteRequest, Usage

BYTES_MEDIA_TYPE: Final = "application/octet-stream"
PIECE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Largest piece that is yielded at once; it has to fit into one event, a third larger as base64."""


class PythonClassRunner:
    """Runs an object of the user's; see `swarmesh.engines.task_server.TaskRunner`."""

    continues = False
    """The user's code begins at the beginning."""

    def __init__(self, worker: Any, slots: int) -> None:
        self._worker = worker
        own = getattr(worker, "slots", None)
        self._slots = min(own, slots) if isinstance(own, int) and own > 0 else slots
        self._media_type = str(getattr(worker, "media_type", BYTES_MEDIA_TYPE))

    @property
    def slots(self) -> int:
        """See `TaskRunner`; the class may ask for fewer than the worker was given."""
        return self._slots

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `TaskRunner`. Usage counts the pieces that were yielded."""
        task = task_of(request)
        pieces = 0
        try:
            async with aclosing(self._worker.foragexec(task)) as yielded:
                async for piece in yielded:
                    pieces += 1
                    yield self._token(piece)
        except SwarmeshError:
            raise
        except Exception as error:
            # The outermost edge of the user's own code, which may raise anything and must not end this process.
            raise TaskFailedError(f"{type(error).__name__}: {error}") from error
        yield Done("stop", Usage(0, pieces, pieces))

    def choice(self, request: TextRequest, index: int) -> AsyncGenerator[Piece, None] | None:  # noqa: ARG002 - the protocol's
        """See `TaskRunner`; the class writes one answer, in its own shape."""
        return None

    def _token(self, piece: Any) -> Token:
        match piece:
            case str():
                return Token(text=piece)
            case bytes():
                _check_size(len(piece))
                return Token(media_type=self._media_type, base64=base64.b64encode(piece).decode())
            case bool() | int() | float() | dict() | list():
                _check_size(len(msgspec.json.encode(piece)))
                return Token(value=piece)
            case _:
                raise TypeError(f"foragexec yielded {type(piece).__name__}; it may yield text, bytes or a JSON value")


def load_class(class_path: str, python_path: tuple[str, ...]) -> Any:
    """An object of the class ``module:Class``.

    Raises:
        EngineStartError: It is not written so, or has no async generator ``foragexec``.
        Exception: Whatever the user's module raises while it is imported or its object made.
    """
    module_name, _, class_name = class_path.partition(":")
    if not module_name or not class_name:
        raise EngineStartError(f"{class_path!r} is not of the form module:Class")
    sys.path[:0] = python_path
    module = importlib.import_module(module_name)
    found = getattr(module, class_name, None)
    if found is None:
        raise EngineStartError(f"module {module_name!r} has no class {class_name!r}")
    if not inspect.isasyncgenfunction(getattr(found, "foragexec", None)):
        raise EngineStartError(
            f"{class_path} has no async generator foragexec",
            hint="Write 'async def foragexec(self, task)' with a yield.",
        )
    return found()


def _check_size(size_bytes: int) -> None:
    if size_bytes > PIECE_BYTES_MAX:
        raise ValueError(f"one piece has {size_bytes} bytes, more than {PIECE_BYTES_MAX}; yield it in parts")
