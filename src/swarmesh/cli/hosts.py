"""`swarmesh hosts add|list|show|remove|drain|doctor`: the machines of the swarm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmesh.cli.failure import ExitCode
from swarmesh.cli.rustbees import DEFAULT_GRACE_S, STOP_SLACK_S
from swarmesh.cli.screen import AsJson, duration, note, print_facts, print_json, print_table
from swarmesh.cli.waiting import step_lines, wait_gone
from swarmesh.client import Swarmesh
from swarmesh.wire.hosts import HostView, Step, StepState

HEADINGS: Final = ("host", "address", "status", "cores", "MiB free", "MiB", "GPUs", "rustbees")
KEY_STEP: Final = "key"
"""The step that has found out the host's key."""
KEY_ADVICE: Final = "    on the host itself, this shows the same: cat /etc/ssh/ssh_host_*_key.pub | ssh-keygen -lf -"

Name = Annotated[str, typer.Argument(help="As 'hosts list' shows it.")]
Grace = Annotated[float, typer.Option(min=0, max=3600, help="Seconds its tasks get to end.")]

app = typer.Typer(no_args_is_help=True, help="The machines of the swarm: add, list, show, remove, drain, doctor.")


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="What you type after ssh: a name, an alias, an IP address.")],
    name: Annotated[str, typer.Option(help="Its name in the swarm.", show_default="made from the address")] = "",
    user: Annotated[str, typer.Option(help="Login name; ssh's own choice when left out.")] = "",
    port: Annotated[int, typer.Option(help="Port of its sshd; ssh's own choice when left out.")] = 0,
    identity: Annotated[Path | None, typer.Option(help="Private key file; ssh's own keys when left out.")] = None,
    proximity: Annotated[float | None, typer.Option(help="0 far to 1 near; nearer hosts are preferred.")] = None,
    fingerprint: Annotated[str, typer.Option(help="SHA256:... that its host key has to have.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a machine that ssh reaches, or repair and upgrade it; example: swarmesh hosts add mac.home.arpa."""
    with Swarmesh() as swarm, step_lines() as show, _goes_on():
        view = swarm.add_host(
            address,
            name=name,
            user=user,
            port=port,
            identity=str(identity.expanduser().absolute()) if identity else "",
            proximity=proximity,
            fingerprint=fingerprint,
            on_step=lambda step: _show_step(show, step),
        )
    if as_json:
        print_json(view)
        return
    print(f"{view.name} is {view.status}: {_hardware(view)}")
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
    grace: Grace = DEFAULT_GRACE_S,
    as_json: AsJson = False,
) -> None:
    """Stop a machine's rustbees, take away what was installed there, and forget it."""
    with Swarmesh() as swarm, step_lines() as show, _goes_on():
        swarm.remove_host(name, keep_models=keep_models, grace_s=grace, on_step=show)
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
        if not (resume or no_wait):
            wait_gone(swarm, view.rustbees, grace + STOP_SLACK_S)
            view = swarm.host(name)
    if as_json:
        print_json(view)
    elif resume:
        print(f"{name} takes rustbees again")
    else:
        left = len(view.rustbees)
        print(f"{name} takes no new rustbees; {f'{left} are ending' if left else 'none is left there'}")
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


@contextmanager
def _goes_on() -> Iterator[None]:
    """Whoever presses Ctrl-C is told that the queen does not leave it half done."""
    try:
        yield
    except KeyboardInterrupt:
        note("the queennode goes on with it; 'swarmesh hosts list' shows what came of it")
        raise


def _show_step(show: Callable[[Step], None], step: Step) -> None:
    show(step)
    if step.step == KEY_STEP and step.state is StepState.DONE:
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
        note(f"{view.name}: {view.error.message}" + (f"\n  next: {view.error.hint}" if view.error.hint else ""))


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="hosts")
