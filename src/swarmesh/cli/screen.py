"""What commands print: JSON, tables and notes. Standard output carries results, standard error everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import typer

_COLOURS: Final = {
    "healthy": "green",
    "done": "green",
    "ok": "green",
    "local": "green",
    "connected": "green",
    "fits": "green",
    "starting": "blue",
    "connecting": "blue",
    "running": "blue",
    "suspect": "yellow",
    "draining": "yellow",
    "warn": "yellow",
    "dead": "red",
    "unreachable": "red",
    "failed": "red",
    "fail": "red",
}

_WIDE: Final = 10_000
"""Columns of a terminal that would cut nothing."""

_CONTROLS: Final = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t\r"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(msgspec.json.encode(value).decode(), flush=True)


def note(text: str) -> None:
    """Tell a person something that is no result, below what was printed before it, also where both go to one file."""
    print(end="", flush=True)
    print(text, file=sys.stderr, flush=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their headings: with colour on a terminal wide enough, else aligned text that is never cut."""
    lines = [list(row) for row in rows]
    if sys.stdout.isatty() and _print_coloured(headings, lines):
        return
    table = [list(headings), *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(headings))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair per line."""
    pairs = list(facts)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {value}")


def harmless(text: str) -> str:
    """Text without the characters that command a terminal: what a model or an engine says is only shown."""
    return text.translate(_CONTROLS)


def duration(seconds: float) -> str:
    """A time span as people read it: ``12.3 s``, ``4m05s``, ``3h07m``, ``2d04h``."""
    whole = int(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def clock(unix_s: float) -> str:
    """A moment in this machine's time zone."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, noun: str) -> str:
    """``1 rustbee``, ``2 rustbees``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def mebibytes(size_bytes: int) -> str:
    """A size; empty when it is not known."""
    return f"{size_bytes / 1048576:,.1f} MiB" if size_bytes else ""


def _print_coloured(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Print with Rich, and say whether the terminal was wide enough for it."""
    from rich import box  # noqa: PLC0415 - rich is slow to import, and only terminals need it
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, header_style="bold yellow", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        # Text, not markup: names in brackets are names.
        table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in row))
    if console.measure(table, options=console.options.update(max_width=_WIDE)).maximum > console.width:
        return False
    console.print(table)
    return True
