"""How long workers take to be ready, learned by model and host."""

from __future__ import annotations

from typing import Final

from swarmesh.core.ids import HostName, ModelName

NEW_SHARE: Final = 0.5
"""How much the newest measurement counts."""
LOAD_TIMES_MAX: Final = 10_000
"""Pairs of model and host that are kept; the one measured longest ago goes first."""
SILENT_MS_MAX: Final = 120_000
"""A start of which nothing at all is heard for so long is given up; an agent reports every few seconds."""
LIMIT_MS_UNKNOWN: Final = 1_800_000
"""What a start may take that reports, where nobody knows how long it takes there: loads of minutes are usual."""
LIMIT_MS_MIN: Final = 300_000
LIMIT_MS_MAX: Final = 3_600_000
LIMIT_FACTOR: Final = 4
"""Where it is known, a start that reports may take so many times what it took before."""
LIMIT_MS_PER_MIB: Final = 20
"""A file that was in memory the last time may have to be read from a disk the next, at 50 MiB/s."""
TURN_MS_MIN: Final = 10_000
TURN_FACTOR: Final = 3
"""A model that was loaded stays for so many times what loading it took, however many others want its place."""


class LoadTimes:
    """From the start, or from the last sign that its file was still being copied, until the worker is ready."""

    def __init__(self) -> None:
        self._known: dict[tuple[ModelName, HostName], int] = {}
        self._of_model: dict[ModelName, int] = {}
        self._allowed_ms: dict[ModelName, int] = {}

    def known(self, model: ModelName, host: HostName, load_ms: int) -> None:
        """Believe what was measured before."""
        self._known.pop((model, host), None)
        self._known[model, host] = load_ms
        self._of_model[model] = load_ms
        if len(self._known) > LOAD_TIMES_MAX:
            oldest = next(iter(self._known))
            del self._known[oldest]
            if not any(name == oldest[0] for name, _ in self._known):
                self._of_model.pop(oldest[0], None)

    def took(self, model: ModelName, host: HostName, load_ms: int) -> int:
        """Take a measurement in; what is believed now."""
        before_ms = self._known.get((model, host), load_ms)
        self._allowed_ms.pop(model, None)
        believed_ms = round(before_ms + NEW_SHARE * (load_ms - before_ms))
        self.known(model, host, believed_ms)
        return believed_ms

    def of(self, model: ModelName, host: HostName | None = None) -> int:
        """There, else wherever it was measured last; 0 when nobody knows."""
        there_ms = self._known.get((model, host)) if host is not None else None
        return there_ms if there_ms is not None else self._of_model.get(model, 0)

    def limit_ms(self, model: ModelName, host: HostName, need_mib: int) -> int:
        """How long a start that reports may take, once its file is there, before it is given up."""
        known_ms = self._known.get((model, host))
        if not known_ms:
            return max(LIMIT_MS_UNKNOWN, self._allowed_ms.get(model, 0))
        learned_ms = max(LIMIT_FACTOR * known_ms, LIMIT_MS_PER_MIB * need_mib)
        return min(LIMIT_MS_MAX, max(LIMIT_MS_MIN, learned_ms, self._allowed_ms.get(model, 0)))

    def overran(self, model: ModelName, limit_ms: int) -> None:
        """A start was given up at its limit: it may have been nearly there, so the next one gets twice the time."""
        self._allowed_ms.pop(model, None)
        self._allowed_ms[model] = min(LIMIT_MS_MAX, 2 * limit_ms)
        if len(self._allowed_ms) > LOAD_TIMES_MAX:
            del self._allowed_ms[next(iter(self._allowed_ms))]

    def turn_ms(self, model: ModelName) -> int:
        """How long a model keeps a place that others want, and how long it waits for one that others keep."""
        return max(TURN_MS_MIN, TURN_FACTOR * self.of(model))
