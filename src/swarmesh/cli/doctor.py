"""`swarmesh doctor`: is this machine ready, and what is missing."""

from __future__ import annotations

import os

import typer

from swarmesh.cli.checkup import examine
from swarmesh.cli.failure import ExitCode
from swarmesh.cli.screen import AsJson, print_json, print_table
from swarmesh.config.home import find_home
from swarmesh.hosts.machine_checks import Verdict
from swarmesh.wire.hosts import CheckView


def doctor(as_json: AsJson = False) -> None:
    """Check what Swarmesh needs on this machine; exit 1 when something stops it from working."""
    findings = examine(find_home(os.environ))
    if as_json:
        print_json(findings)
    else:
        print_table(("", "what", "finding"), ((finding.verdict, finding.what, finding.found) for finding in findings))
        _print_advice(findings)
    if any(finding.verdict == Verdict.FAIL for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _print_advice(findings: list[CheckView]) -> None:
    for finding in findings:
        if finding.hint:
            print(f"  next ({finding.what}): {finding.hint}")


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(doctor)
