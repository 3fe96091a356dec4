"""`swarmesh swarmscale status|set|unset|pause|resume`: how many rustbees each modelcell has."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from swarmesh.cli.failure import UsageError, given
from swarmesh.cli.screen import AsJson, duration, harmless, note, print_facts, print_json, print_table
from swarmesh.client import Swarmesh
from swarmesh.wire.spec import Backend
from swarmesh.wire.swarmscale import BoundsView, RustbeeWish, ScaleDecisionView, ScaleStatus, ScaleView

HEADINGS: Final = ("modelcell", "min", "max", "rustbees", "wanted", "load", "waiting", "now")
MODEL: Final = "MODEL"
RUSTBEES_MAX: Final = 1_000
MIN_HELP: Final = "Never fewer; 0 lets it go when it is idle."
TYPE_HELP: Final = "What each computes on; auto takes back what was said."
ZERO: Final = " 0 takes back what was said."

OneOrNone = Annotated[
    str | None, typer.Argument(metavar=f"[{MODEL}]", callback=given, help="A modelcell; all of them when left out.")
]
All = Annotated[bool, typer.Option("--all", help="For every modelcell that has no bounds of its own.")]

app = typer.Typer(no_args_is_help=True, help="How many rustbees each modelcell has, as it is asked for.")


@app.callback()
def _group() -> None:
    """How many rustbees each modelcell has, as it is asked for."""


@app.command()
def status(modelcell: OneOrNone = None, as_json: AsJson = False) -> None:
    """Show bounds, load and what is under way; example: swarmesh swarmscale status demo."""
    with Swarmesh() as swarm:
        if modelcell:
            _show_one(swarm.swarmscale_of(modelcell), as_json=as_json)
        else:
            _show(swarm.swarmscale(), as_json=as_json)


@app.command("set")
def set_(
    modelcell: OneOrNone = None,
    *,
    every: All = False,
    min: Annotated[int | None, typer.Option(min=0, max=RUSTBEES_MAX, help=MIN_HELP)] = None,  # noqa: A002 - called as the option is
    max: Annotated[  # noqa: A002 - called as the option is
        int | None, typer.Option(min=1, max=RUSTBEES_MAX, help="Never more.")
    ] = None,
    type: Annotated[Backend | None, typer.Option(help=TYPE_HELP)] = None,  # noqa: A002 - called as the option is
    slots: Annotated[int | None, typer.Option(min=0, max=4096, help=f"Tasks at once, of each.{ZERO}")] = None,
    context: Annotated[int | None, typer.Option(min=0, help=f"Tokens of prompt plus answer per slot.{ZERO}")] = None,
    cellalloc: Annotated[int | None, typer.Option(min=0, help=f"MiB to reserve for each.{ZERO}")] = None,
    as_json: AsJson = False,
) -> None:
    """Let rustbees of a modelcell come and go by themselves; example: swarmesh swarmscale set demo --min 0 --max 2."""
    name = _whose(modelcell, every=every)
    if all(option is None for option in (min, max, type, slots, context, cellalloc)):
        raise UsageError("'swarmscale set' needs --min, --max, --type, --slots, --context or --cellalloc")
    with Swarmesh() as swarm:
        before = {} if as_json else {view.modelcell: view.rustbees for view in swarm.swarmscale().modelcells}
        answer = swarm.scale(name, min=min, max=max, type=type, slots=slots, context=context, cellalloc=cellalloc)
    if as_json:
        print_json(answer)
        return
    view = next((view for view in answer.modelcells if view.modelcell == name), None)
    bounds = view.bounds if view is not None else answer.all
    if bounds is None:
        return
    print(f"{name or 'every other modelcell'} may have {bounds.min} to {bounds.max} rustbees{_wish(bounds.rustbee)}")
    for each in answer.modelcells if not answer.paused else ():
        if each is view or (not name and each.bounds is not None and not each.bounds.own):
            _note_surplus(each, before.get(each.modelcell, 0))
    note("  next: 'swarmesh swarmscale status' shows what is done about it")


@app.command()
def unset(modelcell: OneOrNone = None, every: All = False, as_json: AsJson = False) -> None:
    """Leave a modelcell alone again; its rustbees stay as they are."""
    name = _whose(modelcell, every=every)
    with Swarmesh() as swarm:
        answer = swarm.unscale(name)
    if as_json:
        print_json(answer)
        return
    if not name:
        print("modelcells without bounds of their own are left alone")
        return
    for_all = f"; those for all hold for it: {_range(answer.all)}" if answer.all is not None else ""
    print(f"{name} has no bounds of its own any more{for_all}")


@app.command()
def pause(modelcell: OneOrNone = None, as_json: AsJson = False) -> None:
    """Start and stop nothing by itself, of one modelcell or of any; what is under way is finished."""
    with Swarmesh() as swarm:
        answer = swarm.pause_scaling(modelcell or "")
    if as_json:
        print_json(answer)
        return
    print(f"{modelcell or 'swarmscale'} is paused")
    note(f"  next: 'swarmesh swarmscale resume{f' {modelcell}' if modelcell else ''}' goes on")


@app.command()
def resume(modelcell: OneOrNone = None, as_json: AsJson = False) -> None:
    """Start and stop rustbees by itself again."""
    with Swarmesh() as swarm:
        answer = swarm.resume_scaling(modelcell or "")
    if as_json:
        print_json(answer)
        return
    if modelcell and answer.paused:
        print(f"{modelcell} is not paused by itself any more, and everything still is")
        note("  next: 'swarmesh swarmscale resume' goes on with everything")
    else:
        print(f"{modelcell or 'swarmscale'} goes on")


def _whose(modelcell: str | None, *, every: bool) -> str:
    if bool(modelcell) == every:
        raise UsageError("name one modelcell, or say --all")
    return modelcell or ""


def _show(answer: ScaleStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    if answer.paused:
        print("paused: nothing is started or stopped by itself")
    if answer.all is not None:
        print(f"every modelcell without bounds of its own: {_range(answer.all)} rustbees{_wish(answer.all.rustbee)}")
    if answer.modelcells:
        print_table(HEADINGS, map(_row, answer.modelcells))
    elif answer.all is None:
        note("no modelcell is scaled by itself\n  next: swarmesh swarmscale set MODEL --min 0 --max 2")


def _show_one(view: ScaleView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    facts = [
        ("modelcell", view.modelcell),
        ("bounds", _bounds(view.bounds)),
        ("rustbees", f"{view.rustbees} serving, {view.starting} starting, {view.target} wanted"),
        ("slots", f"{view.slots_busy} of {view.slots} in use, load {view.load:.2f}"),
        ("waiting", f"{view.waiting}, the first for {duration(view.wait_s)}" if view.waiting else "none"),
        ("first token", f"after {view.latency_s:.2f} s" if view.latency_s else ""),
        ("idle for", duration(view.idle_s) if view.idle_s else ""),
        ("now", _now(view)),
        ("breaker", _breaker(view)),
        ("decided", _decided(view.last)),
    ]
    print_facts((name, value) for name, value in facts if value)


def _row(view: ScaleView) -> tuple[str, ...]:
    bounds = view.bounds
    starting = f" +{view.starting}" if view.starting else ""
    return (
        view.modelcell,
        str(bounds.min) if bounds is not None else "",
        str(bounds.max) if bounds is not None else "",
        f"{view.rustbees}{starting}",
        str(view.target) if bounds is not None else "",
        f"{view.load:.2f}",
        str(view.waiting) if view.waiting else "",
        _now(view),
    )


def _now(view: ScaleView) -> str:
    if view.action is not None:
        return harmless(view.action.words)
    if view.breaker_s:
        return _breaker(view)
    if view.bounds is not None and view.bounds.paused:
        return "paused"
    return harmless(view.blocked)


def _breaker(view: ScaleView) -> str:
    if not view.breaker_s:
        return ""
    # What an engine said last has lines of its own; a table has not.
    reason = " ... ".join(harmless(view.breaker_reason).splitlines())
    return f"not started again for {duration(view.breaker_s)}: {reason}"


def _decided(last: ScaleDecisionView | None) -> str:
    if last is None:
        return ""
    what = "nothing to do" if last.kind == "hold" else f"{last.kind} {last.count}, {duration(last.ago_s)} ago"
    return f"{what}: {harmless(last.reason)}"


def _bounds(bounds: BoundsView | None) -> str:
    if bounds is None:
        return "none: it is not scaled by itself"
    whose = "its own" if bounds.own else "those for all"
    return f"{_range(bounds)} rustbees, {whose}{_wish(bounds.rustbee)}" + (", paused" if bounds.paused else "")


def _range(bounds: BoundsView) -> str:
    return f"{bounds.min} to {bounds.max}"


def _note_surplus(view: ScaleView, rustbees: int) -> None:
    """Say that more ran than may: those that were started by hand are stopped as well, idle ones before it answers."""
    bounds = view.bounds
    if bounds is None or bounds.paused or rustbees <= bounds.max:
        return
    adopted, leaving = _adopted(view.adopted, rustbees), min(rustbees - bounds.max, rustbees - view.adopted)
    when = "it has nothing to do" if leaving == 1 else "they have nothing to do"
    then = f"; {leaving} will be stopped when {when}" if leaving > 0 else ""
    note(f"  {rustbees} rustbees of {harmless(view.modelcell)} run{adopted}{then}")


def _adopted(adopted: int, rustbees: int) -> str:
    """What is said of servers that count and are not ours to stop."""
    if not adopted:
        return ""
    if adopted == 1:
        return ", 1 of them an adopted server, which is never stopped"
    return f", {adopted if adopted < rustbees else 'all'} of them adopted servers, which are never stopped"


def _wish(wish: RustbeeWish | None) -> str:
    if wish is None:
        return ""
    said = {"type": None if wish.type is Backend.AUTO else wish.type.value}
    said |= {"slots": str(wish.slots or ""), "context": f"{wish.context} tokens" if wish.context else None}
    said["cellalloc"] = f"{wish.cellalloc} MiB" if wish.cellalloc else None
    return "".join(f", {name} {value}" for name, value in said.items() if value)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="swarmscale")
