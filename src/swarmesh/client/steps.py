"""The answer to something long: its steps are handed on as they come, its end is the result."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from swarmesh.client.call import ConnectionBrokenError, StepsCall, UnexpectedAnswerError
from swarmesh.wire.errors import ErrorEnvelope, RemoteError
from swarmesh.wire.hosts import Step
from swarmesh.wire.sse import SseEvent, SseReader

T = TypeVar("T")


class StepsReader(Generic[T]):
    """Reads one such answer. Touches no socket: a transport feeds it what comes.

    Attributes:
        results: The result, once ``done`` was read; nothing more will come then.
    """

    def __init__(self, call: StepsCall[T]) -> None:
        self.results: list[T] = []
        self._call = call
        self._reader = SseReader()

    def feed(self, data: bytes) -> None:
        """Take bytes in, and hand on the steps they complete.

        Raises:
            RemoteError: The answer ended in an error.
            UnexpectedAnswerError: An event's data is not what its name says.
        """
        for event in self._reader.feed(data):
            try:
                self._take(event)
            except msgspec.DecodeError as error:
                raise UnexpectedAnswerError(f"event {event.name!r}: {error}") from error

    def _take(self, event: SseEvent) -> None:
        match event.name:
            case "step":
                self._call.on_step(msgspec.json.decode(event.data, type=Step))
            case "done":
                self.results.append(self._call.call.read(event.data))
            case "error":
                raise RemoteError(msgspec.json.decode(event.data, type=ErrorEnvelope).error, status=502)
            case _:
                return


def steps_cut(url: str) -> ConnectionBrokenError:
    """The answer ended without its result, which is never taken for its end."""
    return ConnectionBrokenError(
        f"the answer from {url} was cut off",
        hint="See 'swarmesh hosts list' for what came of it; to send it again does no harm.",
    )
