"""`swarmesh explain task`: why a task went where it went."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from swarmesh.cli.screen import AsJson, clock, harmless, print_json, print_table
from swarmesh.client import Swarmesh
from swarmesh.wire.explain import AttemptView, CandidateView, TaskExplained

ATTEMPT_HEADINGS: Final = ("attempt", "at", "rustbee", "policy", "queued", "outcome")

app = typer.Typer(no_args_is_help=True, help="Why the swarm decided as it did.")


@app.callback()
def _group() -> None:
    """Why the swarm decided as it did."""


@app.command()
def task(
    task_id: Annotated[
        str, typer.Argument(metavar="ID", help="A job id, an answer's id, or its x-swarmesh-task header.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say why a task went where it went, and what would have changed it; example: swarmesh explain task flow-1a2b."""
    with Swarmesh() as swarm:
        explained = swarm.explain_task(task_id)
    if as_json:
        print_json(explained)
        return
    _print_choice(explained)
    _print_candidates(explained.candidates)
    _print_attempts(explained.attempts)
    print("\nwhat would have changed it")
    for sentence in explained.would_change:
        print(f"  {harmless(sentence)}")


def _print_choice(explained: TaskExplained) -> None:
    where = f"went to {explained.chosen}" if explained.chosen else "waits"
    print(f"{explained.task} ({explained.modelcell}) {where}, policy {explained.policy}")
    print(harmless(explained.words))
    left_out = ", ".join(f"{count} {reason}" for reason, count in explained.vetoes.items()) or "none"
    print(f"rustbees with {explained.modelcell}: {explained.considered}; left out: {left_out}")
    if explained.error:
        print(f"failed: {harmless(explained.error)}")


def _print_candidates(candidates: tuple[CandidateView, ...]) -> None:
    if not candidates:
        return
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate.parts))
    print()
    print_table(
        ("rustbee", "score", *names),
        (
            (each.rustbee_id, f"{each.score:.4g}", *(_number(each.parts.get(name)) for name in names))
            for each in candidates
        ),
    )


def _print_attempts(attempts: tuple[AttemptView, ...]) -> None:
    print()
    print_table(ATTEMPT_HEADINGS, map(_row, attempts))


def _row(attempt: AttemptView) -> tuple[str, ...]:
    return (
        str(attempt.attempt),
        clock(attempt.at),
        attempt.chosen or "",
        attempt.policy,
        f"{attempt.queue_ms} ms",
        ": ".join(filter(None, (attempt.outcome, harmless(attempt.why).replace("\n", " "), _report(attempt)))),
    )


def _report(attempt: AttemptView) -> str:
    told = attempt.report
    if told is None:
        return ""
    said = [
        "" if told.first_token_ms is None else f"first token after {told.first_token_ms} ms",
        "" if told.prompt_tokens is None else f"{told.prompt_tokens} tokens read",
        "" if told.cached_tokens is None else f"{told.cached_tokens} of them from its cache",
        "" if told.completion_tokens is None else f"{told.completion_tokens} written",
    ]
    return ", ".join(filter(None, said))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="explain")
