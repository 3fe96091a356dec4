"""`swarmesh explain task|refusal|placement|scale`: why the swarm decided as it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import typer

from swarmesh.cli.failure import needed
from swarmesh.cli.screen import AsJson, clock, counted, duration, harmless, print_facts, print_json, print_table
from swarmesh.client import Swarmesh
from swarmesh.core.clause import clause
from swarmesh.core.figures import figure
from swarmesh.wire.explain import AttemptView, CandidateView, RefusalExplained, TaskExplained
from swarmesh.wire.swarmscale import PlacementExplained, ScaleDecisionView, ScaleExplained, SiteView

ATTEMPT_HEADINGS: Final = ("attempt", "at", "rustbee", "policy", "queued", "outcome")
HISTORY_HEADINGS: Final = ("ago", "what", "target", "rule", "why")

Explained = TypeVar("Explained", TaskExplained, RefusalExplained, PlacementExplained, ScaleExplained)

Modelcell = Annotated[str, typer.Argument(metavar="MODELCELL", callback=needed, help="As 'models list' shows it.")]
Last = Annotated[bool, typer.Option("--last", help="Where the last one was placed, by the numbers of then.")]

app = typer.Typer(no_args_is_help=True, help="Why the swarm decided as it did.")


@app.callback()
def _group() -> None:
    """Why the swarm decided as it did."""


@app.command()
def task(
    task_id: Annotated[
        str,
        typer.Argument(metavar="ID", callback=needed, help="A job id, an answer's id, or its x-swarmesh-task header."),
    ],
    as_json: AsJson = False,
) -> None:
    """Say why a task went where it went, and what would have changed it; example: swarmesh explain task flow-1a2b."""
    with Swarmesh() as swarm:
        explained = swarm.explain_task(task_id)
    heading = "what would have changed it" if explained.chosen else "what would let it run"
    _show(explained, _print_task, heading, as_json=as_json)


@app.command()
def refusal(
    task_id: Annotated[
        str, typer.Argument(metavar="ID", callback=needed, help="The refusal's x-swarmesh-task header, or a job id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say why a task was refused or given up, and what would let it in; example: swarmesh explain refusal flow-1a2b."""
    with Swarmesh() as swarm:
        explained = swarm.explain_refusal(task_id)
    _show(explained, _print_refusal, "what would have let it in", as_json=as_json)


@app.command()
def placement(modelcell: Modelcell, last: Last = False, as_json: AsJson = False) -> None:
    """Say where the next rustbee of a modelcell would be started, and why there; nothing is started."""
    with Swarmesh() as swarm:
        explained = swarm.explain_placement(modelcell, last=last)
    heading = "what would change it" if explained.live else "what would have changed it"
    _show(explained, _print_placement, heading, as_json=as_json)


@app.command()
def scale(modelcell: Modelcell, as_json: AsJson = False) -> None:
    """Say how many rustbees a modelcell has, and why not more or fewer."""
    with Swarmesh() as swarm:
        explained = swarm.explain_scale(modelcell)
    _show(explained, _print_scale, "what would change it", as_json=as_json)


def _show(explained: Explained, show: Callable[[Explained], None], heading: str, *, as_json: bool) -> None:
    """An answer, and under ``heading`` what would make it another one."""
    if as_json:
        print_json(explained)
        return
    show(explained)
    if explained.would_change:
        print(f"\n{heading}")
    for sentence in explained.would_change:
        print(f"  {harmless(sentence)}")


def _print_task(explained: TaskExplained) -> None:
    _print_choice(explained)
    _print_candidates(explained.candidates)
    _print_attempts(explained.attempts)


def _print_refusal(explained: RefusalExplained) -> None:
    what = f" ({explained.modelcell}, priority {explained.priority})" if explained.priority else ""
    tried = f", after {counted(explained.attempts, 'attempt')}" if explained.attempts else ""
    verb = "was given up" if explained.attempts else "was refused"
    print(f"{explained.task}{what} {verb} at {clock(explained.at)}{tried}: {explained.status} {explained.code}")
    print(harmless(explained.words))
    if explained.prompt_chars is not None:
        bound = f", at most {explained.max_tokens:,} tokens wanted" if explained.max_tokens else ""
        print(f"request size: {counted(explained.prompt_chars, 'character')}{bound}")
    if explained.hint:
        print(f"hint: {harmless(explained.hint)}")


def _print_placement(explained: PlacementExplained) -> None:
    print(f"{explained.modelcell}: {explained.choice or 'no host'}, as of {_as_of(explained)}")
    print(harmless(explained.words))
    if not explained.hosts:
        return
    votes = list(dict.fromkeys(name for site in explained.hosts for name in site.votes))
    weighed = [f"{name} x{explained.weights[name]:g}" if name in explained.weights else name for name in votes]
    # Of a placement that is over nobody keeps them.
    has_memory = any(site.need_mib for site in explained.hosts)
    memory = ("needs MiB", "free MiB") if has_memory else ()
    print()
    print_table(
        ("host", "score", *weighed, *memory, "why not"),
        (
            (
                site.host,
                "" if site.veto else figure(site.score),
                *(_number(site.votes.get(name)) for name in votes),
                *(_memory(site) if has_memory else ()),
                harmless(site.veto),
            )
            for site in explained.hosts
        ),
    )


def _as_of(explained: PlacementExplained) -> str:
    if explained.live:
        return "now"
    return "when the last rustbee was placed" if explained.choice else "when a host was last looked for"


def _memory(site: SiteView) -> tuple[str, str]:
    return (f"{site.need_mib:,}", f"{site.free_mib:,}") if site.need_mib else ("", "")


def _print_scale(explained: ScaleExplained) -> None:
    state = explained.state
    bounds = "not scaled by itself"
    if state.bounds is not None:
        bounds = f"{state.bounds.min} to {state.bounds.max}{', paused' if state.bounds.paused else ''}"
    print(f"{state.modelcell}: {counted(state.rustbees, 'rustbee')}, {state.starting} starting, target {state.target}")
    print(harmless(explained.words))
    facts = [
        ("bounds", bounds),
        ("load", f"{state.load:.2f}, {state.slots_busy} of {counted(state.slots, 'slot')} busy"),
        ("waiting", f"{counted(state.waiting, 'task')}, the first for {duration(state.wait_s)}"),
        ("latency", duration(state.latency_s)),
        # Nobody counts it where nothing would be stopped for it.
        ("idle for", duration(state.idle_s) if state.bounds is not None else ""),
        ("failed", harmless(state.breaker_reason) if clause(state.breaker_reason) not in explained.words else ""),
        ("under way", harmless(state.action.words) if state.action is not None else ""),
    ]
    print_facts((name, value) for name, value in facts if value)
    if explained.load_times:
        told = ", ".join(f"{each.host} {duration(each.load_s)}" for each in explained.load_times)
        print(f"loading took: {told}")
    if explained.history:
        print()
        print_table(HISTORY_HEADINGS, map(_history_row, explained.history))
    if explained.placement is not None:
        print()
        _print_placement(explained.placement)


def _history_row(decision: ScaleDecisionView) -> tuple[str, ...]:
    what = f"{decision.kind} {decision.count}"
    return (duration(decision.ago_s), what, str(decision.target), decision.rule, harmless(decision.reason))


def _print_choice(explained: TaskExplained) -> None:
    where = f"went to {explained.chosen}" if explained.chosen else "waits"
    print(f"{explained.task} ({explained.modelcell}) {where}, policy {explained.policy}")
    print(harmless(explained.words))
    left_out = ", ".join(f"{count} {reason}" for reason, count in explained.vetoes.items()) or "none"
    if explained.without_script:
        print(harmless(explained.without_script))
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
            (each.rustbee_id, figure(each.score), *(_number(each.parts.get(name)) for name in names))
            for each in candidates
        ),
    )


def _print_attempts(attempts: tuple[AttemptView, ...]) -> None:
    print()
    print_table(ATTEMPT_HEADINGS, map(_row, attempts))
    for each in attempts[:-1]:  # That of the last one stands above.
        if each.without_script:
            print(f"attempt {each.attempt}: {harmless(each.without_script)}")


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
    return "" if value is None else figure(value)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="explain")
