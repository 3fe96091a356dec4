"""`swarmesh nectarflow submit|show|list|cancel` (R-05)."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from swarmesh.cli.failure import UsageError
from swarmesh.cli.screen import AsJson, clock, duration, harmless, note, print_facts, print_json, print_table
from swarmesh.cli.start_line import StartLine
from swarmesh.cli.token_printer import Output, TokenPrinter
from swarmesh.client import Swarmesh, TaskOptions
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import Priority
from swarmesh.core.task import TaskStatus
from swarmesh.wire.flow import FlowView

HEADINGS: Final = ("job", "status", "modelcell", "priority", "rustbee", "attempts", "tokens", "created", "took")

JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="As 'nectarflow list' shows it.")]

app = typer.Typer(no_args_is_help=True, help="Nectarflows, the swarm's tasks: submit, show, list, cancel.")


@app.command()
def submit(
    *,
    prompt: Annotated[str | None, typer.Option(help="What to ask; - reads standard input.")] = None,
    input_json: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Any JSON, for a rustbee of your own class; - reads.")
    ] = None,
    modelcell: Annotated[str, typer.Option(help="Which modelcell; the one with the most rustbees if left out.")] = "",
    priority: Annotated[Priority, typer.Option(help="Its place in the broodqueue.")] = Priority.MEDIUM,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is the most likely answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the engine's choices.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")] = None,
    output: Output = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the job id and return.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a task and stream its honeytokens here; example: swarmesh nectarflow submit --prompt "Hello"."""
    options: TaskOptions = {
        "modelcell": modelcell,
        "priority": priority,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "stop": stop or None,
    }
    text = _question(prompt, input_json, options)
    with Swarmesh() as swarm:
        if detach:
            job_id = swarm.submit(text, **options)
            if as_json:
                print_json({"job_id": job_id})
            else:
                print(job_id)
                note(f"  next: swarmesh honeytokens collect --job-id {job_id} --follow")
            return
        _stream(swarm, text, options, output)


@app.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one task: where it runs, how it stands, what it cost."""
    with Swarmesh() as swarm:
        _show(swarm.show(job_id), as_json=as_json)


@app.command("list")
def list_(
    status: Annotated[TaskStatus | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest tasks."""
    with Swarmesh() as swarm:
        views = swarm.list(status=status or "", limit=limit)
    if as_json:
        print_json(views)
    elif views:
        print_table(HEADINGS, map(_row, views))
    elif status is not None:
        note(f"no nectarflow is {status}")
    else:
        note('no nectarflows yet\n  next: swarmesh nectarflow submit --prompt "Hello"')


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Stop a task; what it produced can still be collected."""
    with Swarmesh() as swarm:
        view = swarm.cancel(job_id)
    if as_json:
        print_json(view)
    else:
        print(f"{view.job_id} is {view.status}")


def _question(prompt: str | None, input_json: str | None, options: TaskOptions) -> str | None:
    """The prompt; the input is put into ``options``.

    Raises:
        UsageError: Not exactly one of the two was given, or the input is no JSON.
    """
    if (prompt is None) == (input_json is None):
        raise UsageError("give either --prompt or --input", hint='Example: --prompt "What is a rustbee?"')
    if input_json is None:
        return sys.stdin.read() if prompt == "-" else prompt
    try:
        value: Any = msgspec.json.decode(sys.stdin.read() if input_json == "-" else input_json)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"--input is no JSON: {error}", hint="""Example: --input '{"text": "some words"}'"""
        ) from error
    options["input"] = value
    return None


def _stream(swarm: Swarmesh, prompt: str | None, options: TaskOptions, output: Path | None) -> None:
    stream = swarm.stream(prompt, **options)
    try:
        with stream:
            TokenPrinter(output).print_all(StartLine().over(stream))
    except (KeyboardInterrupt, BrokenPipeError):
        # Nobody reads the answer any more, so nobody should wait for the slot it holds.
        with suppress(SwarmeshError):
            if stream.job_id:
                swarm.cancel(stream.job_id)
        raise


def _show(view: FlowView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    usage = view.usage
    facts = [
        ("job", view.job_id),
        ("status", view.status),
        ("modelcell", view.modelcell),
        ("priority", view.priority),
        ("rustbee", view.rustbee_id or "none yet"),
        ("attempts", str(view.attempts)),
        ("created", clock(view.created_at)),
        ("tokens", f"{usage.prompt_tokens} read, {usage.completion_tokens} written" if usage else ""),
    ]
    if view.attempts:
        facts.insert(-1, ("took", _took(view)))
    if view.decision is not None:
        facts.append(("why there", view.decision))
    if view.waiting_because is not None:
        facts.append(("waits", harmless(view.waiting_because)))
    if view.error is not None:
        facts.append(("error", f"{view.error.code}: {view.error.message}"))
    print_facts(facts)
    if view.waiting_because is not None:
        note(f"  next: swarmesh explain task {view.job_id}")


def _row(view: FlowView) -> tuple[str, ...]:
    return (
        view.job_id,
        view.status,
        view.modelcell,
        view.priority,
        view.rustbee_id or "",
        str(view.attempts),
        str(view.usage.completion_tokens) if view.usage else "",
        clock(view.created_at),
        _took(view),
    )


def _took(view: FlowView) -> str:
    if not view.attempts:  # It only waited.
        return ""
    ended = view.finished_at if view.finished_at is not None else datetime.now(UTC).timestamp()
    return duration(max(0.0, ended - view.created_at))


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="nectarflow")
