"""The rules by which a worker can be chosen, by name; the one called ``swarm`` is in `swarmesh.core.ledger_rule`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from swarmesh.core.candidates import Rank
from swarmesh.core.costs import Costs
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Priority
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.ledger_rule import Facts, LedgerRule, Weighed
from swarmesh.core.ledger_rule import parts_of as ledger_parts
from swarmesh.core.task import Task

Parts = tuple[tuple[str, float], ...]

UNKNOWN_LOAD: Final = 0.5
"""Load of a worker that has not reported yet: it may have work that is in nobody's books. Not zero, not full."""
DEPLETED_QUALITY: Final = 0.5
"""A worker below it is depleted: it fails, or has failed lately."""
STABLE_UPTIME_MS: Final = 300_000
"""A worker is stable when it has been up for so long ..."""
STABLE_CALM_MS: Final = 600_000
"""... and has broken no stream for so long."""
_DEPLETED = 1.0
"""On top of a share of slots: after all that are not depleted."""


class PolicyName(StrEnum):
    """What `swarmesh policy list` shows."""

    SWARM = "swarm"
    FORAGING = "foraging"
    NEST_SITE = "nest-site"
    DIVISION_OF_LABOUR = "division-of-labour"
    ROUND_ROBIN = "round-robin"
    LEAST_WORK = "least-work"


DESCRIPTIONS: Final[Mapping[PolicyName, str]] = MappingProxyType(
    {
        PolicyName.SWARM: "soonest done: work in the books and what must be read, over the speed that was learned",
        PolicyName.FORAGING: "the least share of slots in use; a depleted rustbee last",
        PolicyName.NEST_SITE: "most votes: 0.4 (1 - load) + 0.3 proximity + 0.3 match",
        PolicyName.DIVISION_OF_LABOUR: "high to the longest up, medium to a stable one, low to the youngest",
        PolicyName.ROUND_ROBIN: "each in turn",
        PolicyName.LEAST_WORK: "the least predicted work per slot, whatever the speed",
    }
)


class Rule(Protocol):
    """How a policy compares workers.

    Attributes:
        better: Whether the ``lower`` or the ``higher`` score wins.
        reads_prefix: What a worker has read before counts, so those that have read most are looked at as well.
    """

    better: str
    reads_prefix: bool

    def order_of(self, priority: Priority) -> int:
        """Which of its orders tasks of that priority ask for; 0 when there is only one."""

    def rate(self, worker: Worker, now_ms: int) -> None:
        """What is known of the speed of a free worker has changed."""

    def rank(self, worker: Worker, order: int, now_ms: int) -> Rank:
        """Where a free worker stands, as far as that does not depend on the task; see `Rank`."""

    def weigh(
        self, workers: Sequence[Worker], task: Task, cached_tokens: Sequence[float], now_ms: int
    ) -> list[Weighed]:
        """What each of these workers is compared by: the least wins, so it is a negative where the highest score does.

        ``cached_tokens`` are for each worker what of the prompt it need not read; empty for nothing.
        """


def share(worker: Worker) -> float:
    """Share of its slots in use by the queen's books, 0.0 to 1.0 or more when it has shrunk under its load."""
    used = len(worker.running) / worker.slots if worker.slots else 1.0
    return used if worker.reported else max(used, UNKNOWN_LOAD)


def is_stable(worker: Worker, now_ms: int) -> bool:
    """Whether a worker has been up for long and has broken nothing lately (R-16)."""
    broke_ms = worker.trail.broke_ms
    calm = broke_ms is None or now_ms - broke_ms >= STABLE_CALM_MS
    return calm and now_ms - worker.registered_at_ms >= STABLE_UPTIME_MS


class _ByScore(ABC):
    """A rule that gives each worker a score, in the same order for every task."""

    better = "lower"
    reads_prefix = False

    def order_of(self, _priority: Priority) -> int:
        return 0

    def rate(self, worker: Worker, now_ms: int) -> None:  # noqa: B027 - nothing to do, and nobody has to say so
        """Speed does not count here."""

    def weigh(
        self, workers: Sequence[Worker], task: Task, cached_tokens: Sequence[float], now_ms: int
    ) -> list[Weighed]:
        """Each by its score."""
        sign = 1 if self.better == "lower" else -1
        weighed: list[Weighed] = []
        for index, worker in enumerate(workers):
            score, facts = self.score(worker, task, cached_tokens[index] if cached_tokens else 0.0, now_ms)
            weighed.append((sign * score, 0, worker.last_chosen, index, worker, facts))
        return weighed

    @abstractmethod
    def score(self, worker: Worker, task: Task, cached_tokens: float, now_ms: int) -> tuple[float, Facts]:
        """The score, and what it was made of in the order of `_PARTS`."""


class Foraging(_ByScore):
    """R-14: the least loaded source of food; a depleted one is avoided."""

    def rank(self, worker: Worker, _order: int, now_ms: int) -> Rank:
        """By share of slots."""
        depleted = self._is_depleted(worker, now_ms)
        return Rank(int(depleted), share(worker), _until_calm(worker, now_ms))

    def score(self, worker: Worker, _task: Task, _cached_tokens: float, now_ms: int) -> tuple[float, Facts]:
        """Share of slots in use."""
        load = share(worker)
        score = load + (_DEPLETED if self._is_depleted(worker, now_ms) else 0.0)
        return score, (load, worker.quality, worker.trail.quality(now_ms))

    def _is_depleted(self, worker: Worker, now_ms: int) -> bool:
        return min(worker.quality, worker.trail.quality(now_ms)) < DEPLETED_QUALITY


class NestSite(_ByScore):
    """R-15: ``0.4 * (1 - load) + 0.3 * proximity + 0.3 * match``.

    Half of the match is to own the right modelcell, which every candidate does; half is the share of the prompt that
    was read there before.
    """

    better = "higher"
    reads_prefix = True

    def rank(self, worker: Worker, _order: int, _now_ms: int) -> Rank:
        """By all votes but the one that depends on the prompt."""
        return Rank(0, -self._votes(worker, 0.0))

    def score(self, worker: Worker, task: Task, cached_tokens: float, _now_ms: int) -> tuple[float, Facts]:
        """Sum of the votes, 0.0 to 1.0."""
        warm = min(1.0, cached_tokens * CHARS_PER_TOKEN / task.prompt_chars) if task.prompt_chars else 0.0
        return self._votes(worker, warm), (min(1.0, share(worker)), worker.proximity, 0.5 + 0.5 * warm)

    def _votes(self, worker: Worker, warm: float) -> float:
        # Rounded: equal candidates must not differ by the last bits of a sum.
        votes = 0.4 * (1.0 - min(1.0, share(worker))) + 0.3 * worker.proximity + 0.3 * (0.5 + 0.5 * warm)
        return round(votes, 9)


class DivisionOfLabour(_ByScore):
    """R-16: high to the most experienced worker, medium to a stable one, low to the youngest."""

    better = "higher"

    def order_of(self, priority: Priority) -> int:
        """One order for each priority."""
        return _ORDER_OF[priority]

    def rank(self, worker: Worker, order: int, now_ms: int) -> Rank:
        """By age, either way; the stable by their load."""
        match order:
            case 0:
                return Rank(0, worker.registered_at_ms)
            case 1:
                stable = is_stable(worker, now_ms)
                return Rank(int(not stable), share(worker), 0 if stable else now_ms + _LOOK_AGAIN_MS)
            case _:
                return Rank(0, -worker.registered_at_ms)

    def score(self, worker: Worker, task: Task, _cached_tokens: float, now_ms: int) -> tuple[float, Facts]:
        """Uptime in seconds for high; its negative for low; for medium what is free of a worker, plus 1 if stable."""
        uptime_s = (now_ms - worker.registered_at_ms) / 1_000
        stable, load = float(is_stable(worker, now_ms)), share(worker)
        facts = uptime_s, stable, load
        match task.priority:
            case Priority.HIGH:
                return uptime_s, facts
            case Priority.MEDIUM:
                return 1.0 - load + stable, facts
            case Priority.LOW:
                return -uptime_s, facts


class RoundRobin(_ByScore):
    """Each in turn: who was given a task longest ago."""

    def rank(self, worker: Worker, _order: int, _now_ms: int) -> Rank:
        """By turn."""
        return Rank(0, worker.last_chosen)

    def score(self, worker: Worker, _task: Task, _cached_tokens: float, _now_ms: int) -> tuple[float, Facts]:
        """Number of its last dispatch."""
        return float(worker.last_chosen), (float(worker.last_chosen),)


class LeastWork(_ByScore):
    """The least work in the books per slot."""

    def rank(self, worker: Worker, _order: int, _now_ms: int) -> Rank:
        """By work per slot."""
        return Rank(0, worker.backlog / worker.slots)

    def score(self, worker: Worker, _task: Task, _cached_tokens: float, _now_ms: int) -> tuple[float, Facts]:
        """Token-equivalents per slot."""
        return worker.backlog / worker.slots, (worker.backlog, float(worker.slots))


_PARTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        PolicyName.FORAGING: ("load", "quality", "trail"),
        PolicyName.NEST_SITE: ("load", "proximity", "match"),
        PolicyName.DIVISION_OF_LABOUR: ("uptime_s", "stable", "load"),
        PolicyName.ROUND_ROBIN: ("last_turn",),
        PolicyName.LEAST_WORK: ("backlog_tokens", "slots"),
    }
)
"""What the facts of a rule are called, in their order."""


def parts_of(policy: str, facts: Facts) -> Parts:
    """What a score was made of, by name with the unit: the figures are those of the decision."""
    if policy == PolicyName.SWARM:
        return ledger_parts(facts)
    return tuple(zip(_PARTS.get(policy, ()), facts, strict=False))


def rule_of(name: PolicyName, costs: Costs) -> Rule:
    """The rule of that name, for the tasks of one model."""
    match name:
        case PolicyName.SWARM:
            return LedgerRule(costs)
        case PolicyName.FORAGING:
            return Foraging()
        case PolicyName.NEST_SITE:
            return NestSite()
        case PolicyName.DIVISION_OF_LABOUR:
            return DivisionOfLabour()
        case PolicyName.ROUND_ROBIN:
            return RoundRobin()
        case PolicyName.LEAST_WORK:
            return LeastWork()


_LOOK_AGAIN_MS: Final = 30_000
_ORDER_OF: Final = {Priority.HIGH: 0, Priority.MEDIUM: 1, Priority.LOW: 2}


def _until_calm(worker: Worker, now_ms: int) -> int:
    return now_ms + _LOOK_AGAIN_MS if worker.trail.marks else 0
