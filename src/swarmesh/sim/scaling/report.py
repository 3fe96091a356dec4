"""Tallies as a table in Markdown, and as lines for whoever looks for what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from swarmesh.sim.scaling.seeds import Tally
from swarmesh.sim.scaling.verdicts import Check

SEEDS_SHOWN: Final = 12
HEAD: Final = (
    "trace",
    "runs",
    "requests",
    "failed",
    "wait p50, s",
    "p99, s",
    "starts from zero",
    "their load p50, s",
    "first request beyond it, p50 (p99), s",
    "ups",
    "downs",
    "to zero",
    "swaps",
    "reversals",
    "most in 10 min",
    "mean rustbees",
    "least possible",
)


def markdown(tallies: Iterable[Tally]) -> str:
    """One row for each trace, then every promise that was broken, or that none was."""
    known = list(tallies)
    lines = [_line(HEAD), _line(["---"] * len(HEAD)), *(_line(_row(tally)) for tally in known)]
    failed = [f"- {tally.trace}: {count} {code}" for tally in known for code, count in sorted(tally.failed.items())]
    return "\n".join([*lines, "", *broken(known), "", "Failed requests, by code:", "", *(failed or ["- none"])])


def broken(tallies: Iterable[Tally]) -> list[str]:
    """Each promise that was broken in any trace: in how many runs, and how to see one."""
    lines = []
    for tally in tallies:
        for check, seeds in tally.broken.items():
            shown = ", ".join(map(str, seeds[:SEEDS_SHOWN])) + (", …" if len(seeds) > SEEDS_SHOWN else "")
            lines.append(f"- {tally.trace}: {check} broken in {len(seeds)} of {tally.runs} (seeds {shown})")
            lines.append(f"  - {tally.words[check]}")
    return lines or [f"Kept in all runs: {', '.join(Check)}."]


def _row(tally: Tally) -> list[str]:
    counts, runs = tally.counts, max(1, tally.runs)
    return [
        tally.trace,
        f"{tally.runs:,}",
        f"{counts['requests']:,}",
        f"{tally.failed.total():,}",
        f"{tally.wait_ms(0.5) / 1_000:.1f}",
        f"{tally.wait_ms(0.99) / 1_000:.1f}",
        f"{counts['wakes']:,}",
        f"{tally.start_ms(0.5) / 1_000:.1f}",
        f"{tally.over_start_ms(0.5) / 1_000:.1f} ({tally.over_start_ms(0.99) / 1_000:.1f})",
        *(f"{counts[name]:,}" for name in ("ups", "downs", "sleeps", "swaps", "reversals")),
        str(tally.reversals_10_min_max),
        f"{tally.replicas / runs:.2f}",
        f"{tally.replicas_least / runs:.2f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
