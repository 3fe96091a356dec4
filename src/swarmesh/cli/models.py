"""`swarmesh models list|add|scan|remove|fit|copy`: the modelcells; for those of this machine no queen is needed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from swarmesh.cli.failure import UsageError
from swarmesh.cli.screen import AsJson, mebibytes, note, print_json, print_table
from swarmesh.cli.swarm_models import copy, fit, scan_hosts
from swarmesh.cli.waiting import download_bar, progress
from swarmesh.config.home import find_home
from swarmesh.models import hub
from swarmesh.models.catalog import Catalog
from swarmesh.models.modelcell import Modelcell, ModelSource
from swarmesh.models.scan import FoundModel, ScanReport, directory_root, roots_of_this_machine, scan

HEADINGS: Final = ("modelcell", "kind", "source", "architecture", "parameters", "quantization", "size", "target")

Replace = Annotated[bool, typer.Option("--replace", help="Take the name from whatever has it.")]

app = typer.Typer(no_args_is_help=True, help="Modelcells: list, add, scan, remove, fit, copy.")
app.command()(fit)
app.command()(copy)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the modelcells rustbees can serve."""
    cells = _catalog().list()
    if as_json:
        print_json(cells)
    else:
        print_table(HEADINGS, map(_row, cells))


@app.command()
def add(
    file: Annotated[str, typer.Argument(help="A GGUF file, or hf:ORG/REPOSITORY/FILE.gguf to download.")],
    name: Annotated[str, typer.Option(help="What it will be asked for by.", show_default=False)],
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Add a model file under a name; example: swarmesh models add ./qwen.gguf --name qwen."""
    path, source = Path(file).expanduser(), ModelSource.FILE
    if file.startswith(hub.SCHEME):
        path, source = _download(hub.parse_reference(file)), ModelSource.HUB
    cell = _catalog().add_file(name, path, added_at=time.time(), source=source, replace=replace)
    if as_json:
        print_json(cell)
    else:
        print(f"{cell.name} is {cell.target}")
        note(f"  next: swarmesh spawn rustbee --modelcell {cell.name}")


@app.command("scan")
def scan_(
    directory: Annotated[Path | None, typer.Argument(help="Where to look; without it, the usual places.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be added.")] = False,
    host: Annotated[str, typer.Option(help="Look through that machine of the swarm, and add to its catalog.")] = "",
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Do so on every machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find GGUF files (Hugging Face, Ollama, LM Studio, or a directory) and add them; their files stay in place."""
    if host or all_hosts:
        if directory is not None or dry_run or (host and all_hosts):
            raise UsageError(
                "--host and --all-hosts stand alone", hint="A directory is looked through on this machine only."
            )
        scan_hosts(host, as_json=as_json)
        return
    roots = roots_of_this_machine() if directory is None else (directory_root(directory.expanduser()),)
    catalog = _catalog()
    with progress() as show:
        report = scan(roots, catalog.list(), on_file=lambda path: show(f"reading {path}"))
    if not dry_run:
        for model in report.found:
            if model.known_as is None:
                catalog.add_file(
                    model.name, model.path, added_at=time.time(), source=ModelSource.SCAN, sha256=model.sha256
                )
    if as_json:
        print_json(_scan_json(report))
    else:
        _print_scan(report, dry_run=dry_run)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="As 'models list' shows it.")], as_json: AsJson = False) -> None:
    """Forget a modelcell; its file stays where it is."""
    removal = _catalog().remove(name)
    if as_json:
        print_json(removal)
    else:
        print(removal.message)


def _catalog() -> Catalog:
    return Catalog(find_home(os.environ).root)


def _row(cell: Modelcell) -> tuple[str, ...]:
    return (
        cell.name,
        cell.kind,
        cell.source,
        cell.architecture,
        f"{cell.parameters:,}" if cell.parameters else "",
        cell.quantization,
        mebibytes(cell.size_bytes),
        cell.target,
    )


def _print_scan(report: ScanReport, *, dry_run: bool) -> None:
    if report.found:
        done = "would be added" if dry_run else "added"
        print_table(
            ("modelcell", "status", "found in", "size", "file"),
            (
                (
                    model.name,
                    "known" if model.known_as else done,
                    model.origin,
                    mebibytes(model.header.size_bytes),
                    str(model.path),
                )
                for model in report.found
            ),
        )
    else:
        note("no models found\n  next: swarmesh models scan DIRECTORY, or swarmesh models add FILE --name NAME")
    for skipped in report.skipped:
        note(f"skipped {skipped.path}: {skipped.reason}")
    if report.limit_reached is not None:
        note(f"the scan ended at its limit of {report.limit_reached}\n  next: scan a smaller directory")


def _scan_json(report: ScanReport) -> dict[str, Any]:
    return {
        "found": [_found_json(model) for model in report.found],
        "skipped": [{"path": str(skipped.path), "reason": skipped.reason} for skipped in report.skipped],
        "limit_reached": report.limit_reached,
    }


def _found_json(model: FoundModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": str(model.path),
        "origin": model.origin,
        "known_as": model.known_as,
        "architecture": model.header.architecture,
        "parameters": model.header.parameters,
        "size_bytes": model.header.size_bytes,
        "sha256": model.sha256,
    }


def _download(wanted: hub.HubFile) -> Path:
    with download_bar(wanted.file) as on_progress:
        return hub.download(wanted, on_progress=on_progress)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="models")
