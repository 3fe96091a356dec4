"""``python -m swarmesh.sim.scaling``: many seeds over the traces, the figures, and every promise that was broken."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from swarmesh.sim.scaling.report import markdown
from swarmesh.sim.scaling.seeds import run_seeds
from swarmesh.sim.scaling.traces import TRACES

SECTION: Final = "scaling"
PROGRESS_S: Final = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when every promise was kept, 1 when one was broken, 2 for wrong arguments."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    seeds = list(range(asked.first, asked.first + asked.seeds))
    started_s = time.perf_counter()
    progress = _progress(len(seeds)) if sys.stderr.isatty() or asked.progress else lambda _number: None
    tallies = run_seeds(asked.traces, seeds, processes=asked.processes, progress=progress)
    took_s = time.perf_counter() - started_s
    command = f"python -m swarmesh.sim.scaling --seeds {asked.seeds}"
    text = markdown(tallies.values())
    sys.stdout.write(f"{text}\n\n{len(seeds)} runs in {took_s:.0f} s\n")
    if asked.write_docs is not None:
        write_between_marks(asked.write_docs, f"`{command}`, {time.strftime('%Y-%m-%d')}:\n\n{text}")
    return 1 if any(tally.broken for tally in tallies.values()) else 0


def write_between_marks(page: Path, text: str) -> None:
    """Replace what stands between the marks of this section.

    Raises:
        ValueError: The page has not each of them once.
    """
    begin, end = f"<!-- {SECTION}:begin -->", f"<!-- {SECTION}:end -->"
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{page} needs {begin} and {end}, once each")
    before, _, rest = content.partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _progress(total: int) -> Callable[[int], None]:
    shown_s = 0.0

    def show(number: int) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if now_s - shown_s >= PROGRESS_S or number == total:
            shown_s = now_s
            sys.stderr.write(f"\r{number} of {total} runs" + ("\n" if number == total else ""))
            sys.stderr.flush()

    return show


def _traces(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if not names or not set(names) <= TRACES.keys():
        raise argparse.ArgumentTypeError(f"known are {', '.join(TRACES)}")
    return names


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m swarmesh.sim.scaling", description=__doc__)
    parser.add_argument("--seeds", type=_positive, default=100, help="how many runs, the traces in turn")
    parser.add_argument("--first", type=_positive, default=1, help="the first seed")
    parser.add_argument("--traces", type=_traces, default=list(TRACES), help=f"of {', '.join(TRACES)}")
    parser.add_argument("--processes", type=_positive, default=1, help="how many share the runs")
    parser.add_argument("--progress", action="store_true", help="say how far it is, also where nobody may look")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="put the figures between the marks of a page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
