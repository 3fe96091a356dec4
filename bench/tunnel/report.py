"""The run as Markdown tables, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

from typing import Final

from bench.relay.report import NOTHING, as_table, facts
from bench.relay.session import Outcome
from bench.relay.summary import DIRECT, Goal, Spread, Summary

from .measure import STREAMS
from .ways import WITH_SESSION, WITHOUT_SESSION

FIRST_TOKEN_MS_MAX: Final = 1.0
PARTS: Final = ("queen", "ssh", "sshd")
LABELS: Final = {DIRECT: "direct", WITH_SESSION: f"**{WITH_SESSION}**", WITHOUT_SESSION: WITHOUT_SESSION}


def markdown(summary: Summary, machine: dict[str, str]) -> str:
    """Tables, goals and the machine, ready to stand between the markers."""
    sections = [_first_token(summary), _paced(summary), _full_speed(summary)]
    failures = [f"- **{each.name}** {each.failure}" for each in summary.outcomes if each.failure]
    if failures:
        sections.append("Not in the tables, or only in part:\n\n" + "\n".join(failures))
    sections += [_goals(goals(summary)), "\n".join([*facts(machine), *_others(summary)])]
    return "\n\n".join(sections)


def goals(summary: Summary) -> list[Goal]:
    """What the way through SSH has to hold."""
    words = {"first_token": "100 streams at 30 chunks/s", "alone": "one stream at a time"}
    return [
        Goal(
            f"Added to the first token by the tunnel, p50, ms, {text}",
            FIRST_TOKEN_MS_MAX,
            _median(summary.added(WITH_SESSION, measurement, "first_token_ms_p50")),
        )
        for measurement, text in words.items()
    ]


def _first_token(summary: Summary) -> str:
    head = ["First token, ms", "alone p50", "p99", "100 streams p50", "p99", "added, alone p50", "p99"]
    head += ["added, 100 streams p50", "p99"]
    rows = []
    for outcome in summary.outcomes:
        cells = [LABELS[outcome.name]]
        for read in (summary.spread, summary.added):
            for measurement in ("alone", "first_token"):
                for figure in ("first_token_ms_p50", "first_token_ms_p99"):
                    spread = read(outcome.name, measurement, figure)
                    cells.append(NOTHING if _is_base(outcome, read == summary.added) else _range(spread, 2))
        rows.append(cells)
    return as_table(head, rows)


def _others(summary: Summary) -> list[str]:
    windows = [
        figures["others_busy"]
        for outcome in summary.outcomes
        for streams in STREAMS
        for figures in outcome.rounds.get(f"full {streams}", [])
    ]
    spread = Spread.of(windows)
    if spread is None:
        return []
    share = f"{spread.median:.0%} of its time, {spread.high:.0%} in the worst window"
    return [f"- Others on the core of the queen and ssh, at full speed: {share}"]


def _is_base(outcome: Outcome, added: bool) -> bool:  # noqa: FBT001 - which half of the table
    return added and outcome.name == DIRECT


def _paced(summary: Summary) -> str:
    head = ["Streams at 30 chunks/s each", "way", "on its way p50, ms", "p99, ms"]
    head += ["CPU µs per chunk", *(f"of it {part}" for part in PARTS)]
    rows = []
    for streams in STREAMS:
        for outcome in summary.outcomes:
            measurement = f"paced {streams}"
            delays = [summary.spread(outcome.name, measurement, f"delay_ms_p{share}") for share in (50, 99)]
            cells = [str(streams), LABELS[outcome.name], *(_range(delay, 2) for delay in delays)]
            rows.append([*cells, *_costs(summary, outcome.name, measurement)])
    return as_table(head, rows)


def _full_speed(summary: Summary) -> str:
    head = ["Streams at full speed", "way", "chunks/s", "times direct"]
    head += ["CPU µs per chunk", *(f"of it {part}" for part in PARTS), *(f"{part} busy" for part in PARTS)]
    rows = []
    for streams in STREAMS:
        for outcome in summary.outcomes:
            measurement = f"full {streams}"
            rate = summary.spread(outcome.name, measurement, "chunks_per_s")
            times = summary.ratio(outcome.name, DIRECT, measurement, "chunks_per_s")
            busy = [_known(summary, outcome.name, measurement, f"{part}_busy") for part in PARTS]
            cells = [str(streams), LABELS[outcome.name], _range(rate, 0), _range(times, 2)]
            cells += _costs(summary, outcome.name, measurement)
            rows.append([*cells, *(NOTHING if share is None else f"{share.median:.0%}" for share in busy)])
    return as_table(head, rows)


def _costs(summary: Summary, name: str, measurement: str) -> list[str]:
    every = _known(summary, name, measurement, "us_per_chunk")
    parts = [_known(summary, name, measurement, f"{part}_us_per_chunk") for part in PARTS]
    return [_range(every, 1), *(NOTHING if part is None else f"{part.median:.1f}" for part in parts)]


def _known(summary: Summary, name: str, measurement: str, figure: str) -> Spread | None:
    """A figure that not every way has."""
    outcome = next(each for each in summary.outcomes if each.name == name)
    rounds = outcome.rounds.get(measurement, [])
    return Spread.of([figures[figure] for figures in rounds if figure in figures])


def _goals(held: list[Goal]) -> str:
    rows = [
        [goal.name, f"≤ {goal.limit:.3g}", NOTHING if goal.value is None else f"{goal.value:.3g}", goal.verdict]
        for goal in held
    ]
    return as_table(["What the tunnel has to hold", "limit", "this run", "verdict"], rows)


def _range(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return NOTHING
    median, low, high = (f"{value:,.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low} to {high})"


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None
