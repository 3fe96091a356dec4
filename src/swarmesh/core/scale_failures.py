"""What follows when a worker of a model could not be started: it is counted, and those who wait are told in the end."""

from __future__ import annotations

from collections.abc import Mapping

from swarmesh.core.commands import Command, RaiseAlarm
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.errors import ModelCannotBePlacedError
from swarmesh.core.ids import WorkerId
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_books import ScaleBooks


class Failures:
    """Turns failures into an open breaker, an alarm, and errors for the tasks that wait."""

    def __init__(self, dispatcher: Dispatcher, books: ScaleBooks) -> None:
        self._dispatcher = dispatcher
        self._books = books

    def count(
        self, state: Scaled, reasons: Mapping[str, str], now_ms: int, out: list[Command], *, hopeless: bool = False
    ) -> None:
        """One more, with the reason by place; see `swarmesh.core.breaker.Breaker.failed`."""
        if state.breaker.failed(reasons, now_ms, hopeless=hopeless):
            self._alarm(state, now_ms, out)

    def no_room(self, state: Scaled, reasons: Mapping[str, str], now_ms: int, out: list[Command]) -> None:
        """Others hold all memory and keep it; who waits is told, and it is tried again as soon as that may change."""
        state.breaker.found_no_room(reasons, now_ms)
        self._alarm(state, now_ms, out)

    def tell(self, state: Scaled, now_ms: int, out: list[Command]) -> None:
        """Fail the interactive tasks that wait, if starting workers was given up and there is none."""
        if state.breaker.left_ms(now_ms) and not self._books.is_present(state.model):
            self._dispatcher.fail_waiting(state.model, cannot_be_placed(state, now_ms), out)

    def _alarm(self, state: Scaled, now_ms: int, out: list[Command]) -> None:
        error = cannot_be_placed(state, now_ms)
        out.append(RaiseAlarm(WorkerId(""), error.code, error.message))
        self.tell(state, now_ms, out)


def cannot_be_placed(state: Scaled, now_ms: int) -> ModelCannotBePlacedError:
    """Why no rustbee of a model is started for now, by host, and when it is tried again."""
    left_ms = state.breaker.left_ms(now_ms)
    given_up = "" if state.breaker.for_room else f"given up after {state.breaker.failures} failures, "
    return ModelCannotBePlacedError(
        f"no rustbee of {state.model!r} could be started: {state.breaker.in_words()}; "
        f"{given_up}tried again in {left_ms / 1000:.0f} s",
        hint=f"'swarmesh explain placement {state.model}' shows why not, by host; "
        f"'swarmesh models fit {state.model}' what it needs.",
        retry_after_s=max(1, -(-left_ms // 1000)),
    )
