"""The run as Markdown tables, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from .session import Outcome
from .summary import DIRECT, QUEEN, YARDSTICK, Spread, Summary

NOTHING = "-"


def markdown(summary: Summary, machine: dict[str, str]) -> str:
    """Tables, goals and the machine, ready to stand between the markers."""
    tables = {"requests": _requests, "chunks": _streams, "first_token": _latency_and_memory}
    sections = [table(summary) for measurement, table in tables.items() if summary.has(measurement)]
    failures = [f"- **{each.name}** {each.failure}" for each in summary.outcomes if each.failure]
    if failures:
        sections.append("Not in the tables, or only in part:\n\n" + "\n".join(failures))
    if any(outcome.name == QUEEN and outcome.rounds for outcome in summary.outcomes):
        sections.append(_goals(summary))
    sections.append(_machine(summary, machine))
    return "\n\n".join(sections)


def _requests(summary: Summary) -> str:
    rows = []
    for outcome in summary.outcomes:
        cpu = summary.spread(outcome.name, "requests", "cpu_us_per_request")
        rows.append(
            [
                _label(outcome),
                _cost(outcome, cpu),
                _times(outcome, summary.ratio(outcome.name, YARDSTICK, "requests", "cpu_us_per_request")),
                _count(summary.spread(outcome.name, "requests", "requests_per_s")),
                _share(outcome, summary.spread(outcome.name, "requests", "router_busy")),
            ]
        )
    head = ["32 connections, non-stream", "CPU µs per request", "times nginx", "requests/s", "router busy"]
    return as_table(head, rows)


def _streams(summary: Summary) -> str:
    rows = []
    for outcome in summary.outcomes:
        name = outcome.name
        rows.append(
            [
                _label(outcome),
                _cost(outcome, summary.spread(name, "chunks", "cpu_us_per_chunk")),
                _times(outcome, summary.ratio(name, YARDSTICK, "chunks", "cpu_us_per_chunk")),
                _count(summary.spread(name, "chunks", "chunks_per_s")),
                _share(outcome, summary.spread(name, "chunks", "router_busy")),
                _cost(outcome, summary.spread(name, "stepped", "cpu_us_per_stepped_chunk")),
                _times(outcome, summary.ratio(name, YARDSTICK, "stepped", "cpu_us_per_stepped_chunk")),
                _cost(outcome, summary.spread(name, "starts", "cpu_us_per_stream")),
            ]
        )
    head = [
        "Streams",
        "CPU µs per chunk, full speed",
        "times nginx",
        "chunks/s",
        "router busy",
        "CPU µs per chunk, in step",
        "times nginx",
        "CPU µs per one-chunk stream",
    ]
    return as_table(head, rows)


def _latency_and_memory(summary: Summary) -> str:
    rows = []
    for outcome in summary.outcomes:
        name = outcome.name
        p50, p99 = "first_token_ms_p50", "first_token_ms_p99"
        read = summary.spread if name == DIRECT else summary.added
        suffix = " in all" if name == DIRECT else ""
        rows.append(
            [
                _label(outcome),
                _milliseconds(read(name, "first_token", p50), suffix),
                _milliseconds(read(name, "first_token", p99), suffix),
                _mebibytes(summary.spread(name, "memory", "rss_mib")),
                _mebibytes(summary.spread(name, "memory", "pss_mib")),
                _mebibytes(summary.spread(name, "memory", "rss_mib_idle")),
            ]
        )
    head = [
        "First token and memory",
        "added p50, ms",
        "added p99, ms",
        "MiB at 1,000 streams (RSS)",
        "(PSS)",
        "MiB before (RSS)",
    ]
    return as_table(head, rows)


def _goals(summary: Summary) -> str:
    rows = [
        [goal.name, f"≤ {goal.limit:.3g}", NOTHING if goal.value is None else f"{goal.value:.3g}", goal.verdict]
        for goal in summary.goals()
    ]
    return as_table(["What the queen has to hold", "limit", "this run", "verdict"], rows)


def facts(machine: dict[str, str]) -> list[str]:
    """The machine and the run as lines of a list."""
    return [f"- {label}: `{text}`" if label == "Command" else f"- {label}: {text}" for label, text in machine.items()]


def _machine(summary: Summary, machine: dict[str, str]) -> str:
    lines = facts(machine)
    others = summary.others_busy()
    if others is not None:
        lines.append(
            "- Others on the router's core, while it was loaded to the full: "
            f"{others.median:.0%} of its time, {others.high:.0%} in the worst window"
        )
    return "\n".join(lines)


def as_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all but the first column are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _label(outcome: Outcome) -> str:
    name = "no router (the driver's limit)" if outcome.name == DIRECT else f"{outcome.name} {outcome.version}".strip()
    return f"**{name}**" if outcome.name == QUEEN else name


def _cost(outcome: Outcome, spread: Spread | None) -> str:
    if spread is None or outcome.name == DIRECT:
        return NOTHING
    return f"{spread.median:.1f} ({spread.low:.1f} to {spread.high:.1f})"


def _times(outcome: Outcome, spread: Spread | None) -> str:
    return NOTHING if spread is None or outcome.name == DIRECT else f"{spread.median:.2f}"


def _share(outcome: Outcome, spread: Spread | None) -> str:
    return NOTHING if spread is None or outcome.name == DIRECT else f"{spread.median:.0%}"


def _count(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.median:,.0f}"


def _milliseconds(spread: Spread | None, suffix: str) -> str:
    return NOTHING if spread is None else f"{spread.median:.2f}{suffix}"


def _mebibytes(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.median:.0f}"


def write_between_markers(page: Path, section: str, text: str) -> None:
    """Replaces what stands between a section's markers in the page; raises ValueError where they are missing."""
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{page} needs {begin} and {end}, once each")
    before, _, rest = content.partition(begin)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
