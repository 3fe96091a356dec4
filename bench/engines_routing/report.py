"""The runs as Markdown: what a policy brought, what was wanted of it, and how unequal the engines really were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from bench.relay.report import as_table, facts

from .trial import CORES, Setting, Trial

BASE: Final = "round-robin"
OURS: Final = "swarm"
FIRST_TOKEN_MAX: Final = 0.6
CACHED_MIN: Final = 2.0
SLOWNESS: Final = (3.0, 5.0)
"""How many times slower the slowed engine may read for it to count as a quarter as fast."""
HEAD: Final = ("Policy", "mean, ms", "p50", "p99", "of prompts cached", "tasks of the slow rustbee", "failed")

Figure = Callable[[Trial], float]


@dataclass(frozen=True)
class Goal:
    """Something that ``swarm`` has to bring, as a multiple of round robin.

    Attributes:
        value: Mean of all runs over the mean of all runs.
        pairs: The same of each pair of runs with one load.
    """

    what: str
    limit: str
    value: float
    pairs: list[float]
    held: bool


def goals(trials: Sequence[Trial]) -> list[Goal]:
    """Both of them."""
    first, cached = _times(trials, _mean_ms), _times(trials, _cached)
    return [
        Goal("Mean time to the first token", f"≤ {FIRST_TOKEN_MAX:g}", *first, held=first[0] <= FIRST_TOKEN_MAX),
        Goal("Share of prompt tokens from caches", f"≥ {CACHED_MIN:g}", *cached, held=cached[0] >= CACHED_MIN),
    ]


def markdown(trials: Sequence[Trial], setting: Setting, machine: dict[str, str]) -> str:
    """Goals first, then the policies, the engines and the machine."""
    policies = list(dict.fromkeys(trial.policy for trial in sorted(trials, key=_rank)))
    sections = [
        as_table(["`swarm` over `round-robin`", "wanted", "measured", "pair by pair", "verdict"], _goal_rows(trials)),
        as_table(list(HEAD), [_row(policy, _of(trials, policy)) for policy in policies]),
        _engines(trials),
        *_disturbed(trials),
        _about(trials, setting),
    ]
    return "\n\n".join([*sections, "\n".join(facts(machine))])


def in_a_line(trial: Trial) -> str:
    """For whoever watches."""
    read, written = trial.slowness
    return (
        f"{trial.policy}, load {trial.seed}: mean {trial.first_ms_mean:.0f} ms, p99 {trial.first_ms_at(0.99):.0f}, "
        f"cached {trial.cached_share:.1%}, shares {' '.join(f'{share:.0%}' for share in trial.share)}, "
        f"the slow one reads {read:.1f} and writes {written:.1f} times slower"
    )


def _goal_rows(trials: Sequence[Trial]) -> list[list[str]]:
    return [
        [
            goal.what,
            goal.limit,
            f"{goal.value:.2f}",
            f"{min(goal.pairs):.2f} to {max(goal.pairs):.2f}",
            "held" if goal.held else "**missed**",
        ]
        for goal in goals(trials)
    ]


def _row(policy: str, trials: Sequence[Trial]) -> list[str]:
    return [
        f"`{policy}`",
        _spread(trials, _mean_ms, "{:,.0f}"),
        _spread(trials, lambda trial: trial.first_ms_at(0.5), "{:,.0f}"),
        _spread(trials, lambda trial: trial.first_ms_at(0.99), "{:,.0f}"),
        _spread(trials, _cached, "{:.1%}"),
        _spread(trials, lambda trial: trial.share[-1], "{:.0%}"),
        str(sum(len(trial.answers) - len(trial.whole) for trial in trials)),
    ]


def _engines(trials: Sequence[Trial]) -> str:
    rows = []
    for place, cores in enumerate(CORES):
        read = _spread(trials, lambda trial, at=place: trial.alone[at].read_per_s, "{:,.0f}")  # type: ignore[misc]  # mypy cannot infer a lambda's default.
        written = _spread(trials, lambda trial, at=place: trial.alone[at].written_per_s, "{:,.0f}")  # type: ignore[misc]  # As above.
        rows.append([f"{place + 1}, {cores:g} of a core", read, written])
    slow = [_spread(trials, lambda trial, at=at: trial.slowness[at], "{:.1f}") for at in (0, 1)]  # type: ignore[misc]  # As above.
    rows.append(["times slower the last one is", *slow])
    return as_table(["Engine alone, after the load", "tokens read per second", "tokens written per second"], rows)


def _disturbed(trials: Sequence[Trial]) -> list[str]:
    low, high = SLOWNESS
    odd = [trial for trial in trials if not low <= trial.slowness[0] <= high]
    lines = [f"- `{trial.policy}`, load {trial.seed}: {trial.slowness[0]:.1f} times slower" for trial in odd]
    words = f"Runs whose slow engine did not read {low:g} to {high:g} times slower; something else used this machine:"
    return ["\n".join([words, "", *lines])] if odd else []


def _about(trials: Sequence[Trial], setting: Setting) -> str:
    load = setting.load
    read = fmean(answer.prompt_tokens for trial in trials for answer in trial.whole)
    return (
        f"{load.groups} groups of {load.chats} chats, prompts of {read:.0f} tokens on the average, at most "
        f"{load.answer_tokens} written; {load.rate_per_s:g} chats a second come at random times; "
        f"{setting.slots} slots of {setting.context:,} tokens per engine. "
        f"{len(_of(trials, OURS))} runs of each policy; means of the runs, in brackets the lowest and the highest."
    )


def _times(trials: Sequence[Trial], figure: Figure) -> tuple[float, list[float]]:
    ours, base = ([figure(trial) for trial in _of(trials, policy)] for policy in (OURS, BASE))
    return fmean(ours) / fmean(base), [mine / its for mine, its in zip(ours, base, strict=True)]


def _of(trials: Sequence[Trial], policy: str) -> list[Trial]:
    return sorted((trial for trial in trials if trial.policy == policy), key=lambda trial: trial.seed)


def _spread(trials: Sequence[Trial], figure: Figure, shape: str) -> str:
    values = [figure(trial) for trial in trials]
    low, high = shape.format(min(values)), shape.format(max(values))
    return f"{shape.format(fmean(values))} ({low} to {high})"


def _rank(trial: Trial) -> tuple[bool, str]:
    return trial.policy not in {BASE, OURS}, trial.policy


def _mean_ms(trial: Trial) -> float:
    return trial.first_ms_mean


def _cached(trial: Trial) -> float:
    return trial.cached_share
