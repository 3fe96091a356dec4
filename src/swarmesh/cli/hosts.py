"""`swarmesh hosts add|list|show|remove|drain|doctor`: the machines of the swarm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmesh.cli.failure import ExitCode, UsageError
from swarmesh.cli.rustbees import DEFAULT_GRACE_S, STOP_SLACK_S
from swarmesh.cli.screen import AsJson, counted, duration, note, print_facts, print_json, print_table
from swarmesh.cli.waiting import WITHIN_REACH, step_lines, wait_gone
from swarmesh.client import Swarmesh
from swarmesh.core.errors import SwarmeshError
from swarmesh.wire.hosts import HostView, Step, StepState

HEADINGS: Final = ("host", "address", "status", "cores", "MiB free", "MiB", "GPUs", "rustbees")
KEY_STEP: Final = "key"
"""The step that has found out the host's key."""
COMPARE: Final = "compare"
"""Stands in that step's text when nobody has vouched for the key yet."""
KEY_ADVICE: Final = "    on the host itself, this shows the same: cat /etc/ssh/ssh_host_*_key.pub | ssh-keygen -lf -"

Name = Annotated[str, typer.Argument(help="As 'hosts list' shows it.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of its sshd; ssh's own choice when left out.")]
Proximity = Annotated[float | None, typer.Option(min=0, max=1, help="0 far to 1 near; nearer hosts are preferred.")]
Grace = Annotated[float, typer.Option(min=0, max=3600, help="Seconds its tasks get to end.")]

app = typer.Typer(no_args_is_help=True, help="The machines of the swarm: add, list, show, remove, drain, doctor.")


class HostAwayError(SwarmeshError):
    """The host is out of reach, so that what was asked for cannot be seen done."""

    code = "host_unreachable"
    status = 502


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="What you type after ssh: a name, an alias, an IP address.")],
    name: Annotated[str, typer.Option(help="Its name in the swarm.", show_default="made from the address")] = "",
    user: Annotated[str, typer.Option(help="Login name; ssh's own choice when left out.")] = "",
    port: Port = None,
    identity: Annotated[Path | None, typer.Option(help="Private key file; ssh's own keys when left out.")] = None,
    proximity: Proximity = None,
    fingerprint: Annotated[str, typer.Option(help="SHA256:... that its host key has to have.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a machine that ssh reaches, or repair and upgrade it; example: swarmesh hosts add mac.home.arpa."""
    if not address.strip():
        raise UsageError("the address is empty", hint="Example: swarmesh hosts add mac.home.arpa")
    with Swarmesh() as swarm, step_lines() as show, _goes_on("run 'swarmesh hosts add' again to see how it went"):
        view = swarm.add_host(
            address,
            name=name,
            user=user,
            port=port or 0,
            identity=str(identity.expanduser().absolute()) if identity else "",
            proximity=proximity,
            fingerprint=fingerprint,
            on_step=lambda step: _show_step(show, step),
        )
    if as_json:
        print_json(view)
        return
    print(f"{view.name} is {view.status}: {_hardware(view)}")
    if view.draining:
        note(f"  next: swarmesh hosts drain {view.name} --resume")
    else:
        note(f"  next: swarmesh spawn rustbee --host {view.name} --modelcell NAME")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the machines: how each stands, what it has and what is free."""
    with Swarmesh() as swarm:
        views = swarm.hosts()
    if as_json:
        print_json(views)
        return
    print_table(HEADINGS, map(_row, views))
    for view in views:
        _explain(view)
    if len(views) == 1:
        note("  next: swarmesh hosts add ADDRESS")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one machine."""
    with Swarmesh() as swarm:
        view = swarm.host(name)
    if as_json:
        print_json(view)
        return
    print_facts((what, found) for what, found in _facts(view) if found)
    _explain(view)


@app.command()
def remove(
    name: Name,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Leave copied model files there.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Let go of it even if it is out of reach; what is there stays there.")
    ] = False,
    grace: Grace = DEFAULT_GRACE_S,
    as_json: AsJson = False,
) -> None:
    """Stop a machine's rustbees, take away what was installed there, and forget it."""
    with Swarmesh() as swarm, step_lines() as show, _goes_on("'swarmesh hosts list' shows what came of it"):
        swarm.remove_host(name, keep_models=keep_models, forget=forget, grace_s=grace, on_step=show)
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        print(f"{name} is no host of this swarm any more")


@app.command()
def drain(
    name: Name,
    grace: Grace = DEFAULT_GRACE_S,
    resume: Annotated[bool, typer.Option("--resume", help="Let it take rustbees again.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once, not when it is empty.")] = False,
    as_json: AsJson = False,
) -> None:
    """Empty a machine: nothing new starts there, its rustbees end, their streams go on elsewhere."""
    with Swarmesh() as swarm:
        view = swarm.resume_host(name) if resume else swarm.drain_host(name, grace)
        if not resume and view.status not in WITHIN_REACH and view.rustbees:
            raise _away(view)
        if not (resume or no_wait):
            wait_gone(swarm, view.rustbees, grace + STOP_SLACK_S)
            view = swarm.host(name)
    if as_json:
        print_json(view)
    elif resume:
        print(f"{name} takes rustbees again")
    else:
        print(f"{name} takes no new rustbees; {_left(view)}")
        note(f"  next: swarmesh hosts drain {name} --resume, when it shall take some again")


@app.command()
def doctor(name: Name, as_json: AsJson = False) -> None:
    """Check what a machine has and lacks; exit 1 when something stops it from working."""
    with Swarmesh() as swarm:
        checks = swarm.host_checks(name)
    if as_json:
        print_json(checks)
    else:
        print_table(("", "what", "finding"), ((check.verdict, check.what, check.found) for check in checks))
        for check in checks:
            if check.hint:
                print(f"  next ({check.what}): {check.hint}")
    if any(check.verdict == "fail" for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def _away(view: HostView) -> HostAwayError:
    count = len(view.rustbees)
    stopped = f"its {counted(count, 'rustbee')} {'is' if count == 1 else 'are'} stopped when it is back"
    return HostAwayError(f"{view.name} is out of reach; {stopped}", hint=f"'swarmesh hosts show {view.name}' says why.")


def _left(view: HostView) -> str:
    if view.rustbees:
        return f"{len(view.rustbees)} {'is' if len(view.rustbees) == 1 else 'are'} ending"
    return "none is left there" if view.status in WITHIN_REACH else "it is out of reach, and none is known there"


@contextmanager
def _goes_on(what_next: str) -> Iterator[None]:
    """Whoever presses Ctrl-C is told that the queen does not leave it half done."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"the queennode goes on with it; {what_next}")
        raise


def _show_step(show: Callable[[Step], None], step: Step) -> None:
    show(step)
    if step.step == KEY_STEP and step.state is StepState.DONE and COMPARE in step.text:
        note(KEY_ADVICE)


def _status(view: HostView) -> str:
    return f"{view.status}, draining" if view.draining else str(view.status)


def _row(view: HostView) -> tuple[str, ...]:
    known = bool(view.total_mib)
    return (
        view.name,
        view.address,
        _status(view),
        str(view.cpu_cores) if known else "",
        f"{view.free_mib:,}" if known else "",
        f"{view.total_mib:,}" if known else "",
        _gpus(view),
        str(len(view.rustbees)),
    )


def _facts(view: HostView) -> list[tuple[str, str]]:
    software = " ".join(part for part in (view.system, view.machine) if part)
    memory = f"{view.free_mib:,} MiB free for rustbees, {view.available_mib:,} available, {view.total_mib:,} in all"
    return [
        ("host", view.name),
        ("address", f"{view.user}@{view.address}" if view.user else view.address),
        ("port", str(view.port or "")),
        ("status", f"{_status(view)} for {duration(view.since_s)}"),
        ("host key", view.fingerprint),
        ("proximity", f"{view.proximity:g}"),
        ("system", software),
        ("python", view.python),
        ("swarmesh", view.version),
        ("home", view.home),
        ("cores", str(view.cpu_cores or "")),
        ("memory", memory if view.total_mib else ""),
        ("disk", f"{view.disk_free_mib:,} MiB free" if view.disk_free_mib else ""),
        *(
            (f"gpu {gpu.index}", f"{gpu.name}, {gpu.backend}, {gpu.free_mib:,} MiB free of {gpu.total_mib:,} MiB")
            for gpu in view.gpus
        ),
        ("rustbees", ", ".join(view.rustbees) or "none"),
    ]


def _hardware(view: HostView) -> str:
    return f"{view.cpu_cores} cores, {view.total_mib:,} MiB, {_gpus(view) or 'no GPU'}"


def _gpus(view: HostView) -> str:
    counts = Counter(gpu.name for gpu in view.gpus)
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())


def _explain(view: HostView) -> None:
    if view.error is not None:
        hint = view.error.hint.replace("NAME", view.name)  # What can be typed as it stands is better than a pattern.
        note(f"{view.name}: {view.error.message}" + (f"\n  next: {hint}" if hint else ""))


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="hosts")
