"""`swarmesh models fit|copy|scan --host`: the model files on every machine of the swarm, through the queen."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from swarmesh.cli.failure import ExitCode
from swarmesh.cli.screen import AsJson, mebibytes, note, print_json, print_table
from swarmesh.cli.spawn import Context, Slots
from swarmesh.cli.waiting import progress, step_lines
from swarmesh.client import Swarmesh
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import FitList, FitView, FoundList

FIT_HEADINGS: Final = ("host", "memory", "", "need MiB", "free MiB", "MiB", "file", "what would help")
CLOSED: Final = frozenset({"out of reach", "draining"})
"""Why a host takes nothing, whatever fits there."""
FOUND_HEADINGS: Final = ("host", "modelcell", "status", "found in", "size", "file")

Modelcell = Annotated[str, typer.Argument(metavar="NAME", help="As 'models list' shows it.")]


def fit(modelcell: Modelcell, slots: Slots = None, context: Context = None, as_json: AsJson = False) -> None:
    """Show what a modelcell needs, and on which machines it fits; example: swarmesh models fit qwen --slots 4."""
    with Swarmesh() as swarm, progress() as show:
        show(f"asking every host about {modelcell}")
        found = swarm.fit(modelcell, slots=slots, context=context)
    if as_json:
        print_json(found)
    else:
        _print_fit(found)


def copy(
    modelcell: Modelcell,
    to: Annotated[str, typer.Option(metavar="HOST", help="Machine to bring it to.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Copy a modelcell's file to a machine; a copy that broke off goes on where it was."""
    with Swarmesh() as swarm, step_lines() as show:
        copied = swarm.copy_model(modelcell, to, on_step=show)
    if as_json:
        print_json(copied)
        return
    how = f"{mebibytes(copied.sent_bytes)} sent, from {copied.source}" if copied.sent_bytes else "it was there already"
    print(f"{copied.modelcell} is on {copied.host}: {copied.path} ({how})")
    note(f"  next: swarmesh spawn rustbee --host {copied.host} --modelcell {copied.modelcell}")


def scan_hosts(host: str, *, as_json: bool) -> None:
    """Add the model files on a machine to its catalog and show them; on every one when ``host`` is empty.

    Raises:
        RemoteError: The machine that was named could not be asked.
    """
    with Swarmesh() as swarm, progress() as show:
        show(f"looking for models on {host or 'every host'}")
        found = swarm.scan_models(host)
    if host in found.errors:
        raise RemoteError(found.errors[host], status=502)
    if as_json:
        print_json(found)
    else:
        _print_found(found)
    if found.errors:
        raise typer.Exit(ExitCode.FAILED)


def _print_fit(fit: FitList) -> None:
    print(
        f"{fit.modelcell} needs {fit.need_mib:,} MiB for {fit.slots} slots of {fit.context:,} tokens: "
        f"weights {fit.weights_mib:,}, KV cache {fit.kv_cache_mib:,}, compute {fit.compute_mib:,}, "
        f"process {fit.process_mib:,}"
    )
    print_table(
        FIT_HEADINGS,
        (
            (
                view.host,
                view.memory,
                _verdict(view),
                f"{view.need_mib:,}",
                f"{view.free_mib:,}",
                f"{view.total_mib:,}",
                "there" if view.file_there else "",
                "" if view.would_help in CLOSED else view.would_help,
            )
            for view in fit.hosts
        ),
    )


def _verdict(view: FitView) -> str:
    if view.fits:
        return "fits"
    return view.would_help if view.would_help in CLOSED else "too small"


def _print_found(found: FoundList) -> None:
    if found.found:
        print_table(
            FOUND_HEADINGS,
            (
                (
                    model.host,
                    model.known_as or model.name,
                    "in its catalog" if model.known_as else "not added",
                    model.origin,
                    mebibytes(model.size_bytes),
                    model.path,
                )
                for model in found.found
            ),
        )
        first = found.found[0]
        note(f"  next: swarmesh spawn rustbee --host {first.host} --modelcell {first.known_as or first.name}")
    else:
        note("no models found")
    for host, error in found.errors.items():
        note(f"{host} could not be asked: {error.message}" + (f"\n  next: {error.hint}" if error.hint else ""))
