"""`swarmesh policy check|test|activate|deactivate|script`: a user's own policy, from a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmesh.cli.failure import ExitCode, UsageError
from swarmesh.cli.screen import AsJson, clock, counted, duration, harmless, note, print_facts, print_json, print_table
from swarmesh.client import RemoteError, Swarmesh
from swarmesh.core.errors import ConfigError, ConflictError
from swarmesh.policy.checking import Findings, Trial, check
from swarmesh.policy.script import SOURCE_BYTES_MAX
from swarmesh.queen.script_file import SUFFIX
from swarmesh.wire.scripts import ReplayChange, ReplayView, ScriptState, ScriptView

ANSWER_CHARS_MAX: Final = 60
ROWS_MAX: Final = 30
ERRORS_MAX: Final = 5
HOURS_MAX: Final = 24.0
UNCHANGED: Final = "nothing has changed: what decided before goes on deciding"

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy script, like those in examples/policies.")]


def check_(file: File, as_json: AsJson = False) -> None:
    """Look for mistakes in a policy script, without a queennode; exit 1 if there are any."""
    findings = check(file.name, _read(file))
    if as_json:
        print_json(findings)
        raise typer.Exit(ExitCode.FAILED if findings.mistakes else ExitCode.DONE)
    _demand_right(findings)
    slowest_us = max(trial.took_us for trial in findings.trials)
    print(f"{harmless(findings.name)} is right: it defines {', '.join(findings.hooks)}")
    note(
        f"{counted(len(findings.trials), 'sample')} answered, the slowest in {slowest_us / 1_000:.1f} ms"
        f"\n  next: swarmesh policy test {shlex.quote(harmless(str(file)))} --replay"
    )


def try_out(
    file: File,
    replay: Annotated[
        bool, typer.Option("--replay", help="Ask the queennode what it would have changed of the last day.")
    ] = False,
    hours: Annotated[
        float | None,
        typer.Option(help="With --replay: how far back.", min=0.01, max=HOURS_MAX, show_default=f"{HOURS_MAX:g}"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a policy script about a swarm that does not exist, or about what yours decided; changes nothing."""
    if hours is not None and not replay:
        raise UsageError("--hours is for --replay: without it the script is asked about a swarm that does not exist")
    hours = HOURS_MAX if hours is None else hours
    source = _read(file)
    if not replay:
        _print_trials(check(file.name, source), as_json=as_json)
        return
    with Swarmesh() as swarm:
        view = swarm.replay_script(source, name=file.name, hours=hours)
    if as_json:
        print_json(view)
    else:
        _print_replay(view, hours)
    if view.failed:
        raise typer.Exit(ExitCode.FAILED)


def activate(file: File, as_json: AsJson = False) -> None:
    """Let a policy script decide from now on; what is saved in the file is taken up within a second or two."""
    source = _read(file)
    findings = check(file.name, source)
    if as_json:
        findings.demand_none()
        with Swarmesh() as swarm:
            print_json(swarm.activate_script(source, name=file.name, path=str(file.absolute())))
        return
    if findings.mistakes:
        note(UNCHANGED)
    _demand_right(findings)
    with Swarmesh() as swarm:
        before = swarm.policy_script()
        try:
            view = swarm.activate_script(source, name=file.name, path=str(file.absolute()))
        except RemoteError:
            note(UNCHANGED)
            raise
    replaced = before.state is not ScriptState.NONE and before.name != view.name
    instead = f", in place of {harmless(before.name)}" if replaced else ""
    print(f"{harmless(view.name)} decides now: {', '.join(view.hooks)}{instead}")
    saved = "what is saved there is taken up" if view.watched else f"its file is {_unwatched(view)}: activate it again"
    note(f"{saved}\n  watch: swarmesh policy script\n  back: swarmesh policy deactivate")


def deactivate(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Only if it is this one that decides.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let the built-in policies decide alone."""
    with Swarmesh() as swarm:
        name = swarm.policy_script().name
        if file is not None and name and file.name != name:
            raise ConflictError(f"{name} decides, not {file.name}", hint="swarmesh policy deactivate")
        swarm.deactivate_script()
    if as_json:
        print_json({"deactivated": name})
    else:
        print(f"{harmless(name)} decides no more")


def script(as_json: AsJson = False) -> None:
    """Show the policy script: what it is, how it does, and what it did wrong last."""
    with Swarmesh() as swarm:
        view = swarm.policy_script()
    if as_json:
        print_json(view)
    elif view.state is ScriptState.NONE:
        print("no policy script: the built-in policies decide")
    else:
        _print_script(view)


def print_line() -> None:
    """One line about the script, below the list of policies; nothing where there is none or the key may not know."""
    try:
        with Swarmesh() as swarm:
            view = swarm.policy_script()
    except RemoteError:
        return
    if view.state is ScriptState.ACTIVE:
        print(f"before all of them: {harmless(view.name)} ({', '.join(view.hooks)})")
    elif view.state is ScriptState.OFF:
        print(harmless(f"{view.name} is off: {view.reason}"))


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("check")(check_)
    app.command("test")(try_out)
    for command in (activate, deactivate, script):
        app.command()(command)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(SOURCE_BYTES_MAX + 1)
        if len(data) > SOURCE_BYTES_MAX:
            raise ConfigError(
                f"{file} has more than {SOURCE_BYTES_MAX:,} bytes", hint="A policy script is a few lines."
            )
        # Some editors of Windows begin a file with a mark that is in none of its lines.
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", hint="Name a file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text: byte {error.start} is not UTF-8", hint="Save it as UTF-8.") from error


def _demand_right(findings: Findings) -> None:
    """Print what is wrong; leave with exit 1 if that makes the script useless."""
    for mistake in findings.mistakes:
        print(harmless(mistake.picture))
    for warning in findings.warnings:
        note(f"warning: {harmless(warning.picture)}")
    if findings.mistakes:
        note(f"error: {counted(len(findings.mistakes), 'mistake')} in {harmless(findings.name)}")
        raise typer.Exit(ExitCode.FAILED)


def _print_trials(findings: Findings, *, as_json: bool) -> None:
    if as_json:
        print_json(findings)
        raise typer.Exit(ExitCode.FAILED if findings.mistakes else ExitCode.DONE)
    if findings.trials:
        print_table(("function", "sample", "answer", "took"), (_row(trial) for trial in findings.trials))
    for line in findings.said:
        note(f"it said: {harmless(line)}")
    _demand_right(findings)


def _row(trial: Trial) -> tuple[str, str, str, str]:
    answer = "failed" if trial.mistake is not None else _answer(trial)
    return trial.sample.hook, trial.sample.title, answer, f"{trial.took_us / 1_000:.1f} ms"


def _answer(trial: Trial) -> str:
    answer = trial.answer
    if isinstance(answer, list):
        text = ", ".join("None" if score is None else f"{score:g}" for score in answer)
    else:
        text = str(answer)
    return harmless(text if len(text) <= ANSWER_CHARS_MAX else f"{text[:ANSWER_CHARS_MAX]}...")


def _print_replay(view: ReplayView, hours: float) -> None:
    print(
        f"{counted(view.decisions, 'decision')} of the last {duration(hours * 3600)}: asked about {view.asked:,}, "
        f"{view.changed:,} would have been others, {view.failed:,} without an answer"
    )
    if view.changes:
        rows = (_changed(change) for change in view.changes)
        print_table(("function", "when", "about", "was", "would be"), list(rows)[:ROWS_MAX])
        if view.changed > ROWS_MAX:
            note(f"and {view.changed - min(ROWS_MAX, len(view.changes)):,} more; --json shows {len(view.changes)}")
    if not view.complete:
        note("there was no time for all of them: the newest are left out; --hours takes fewer")
    for failure in view.failures[:ERRORS_MAX]:
        note(f"failed: {failure.hook} about {harmless(f'{failure.subject}: {failure.why}')}")


def _changed(change: ReplayChange) -> tuple[str, ...]:
    return (change.hook, clock(change.at), harmless(change.subject), harmless(change.was), harmless(change.would_be))


def _print_script(view: ScriptView) -> None:
    file = harmless(view.path) or _unwatched(view)
    print_facts(
        [
            ("name", harmless(view.name)),
            ("state", view.state),
            *([("reason", harmless(view.reason))] if view.reason else []),
            ("functions", ", ".join(view.hooks)),
            ("file", f"{file}{_watch(view)}"),
            ("since", clock(view.activated_at)),
            ("asked", f"{view.asked:,}, failed {view.failed:,}, late {view.late:,}"),
            ("answers", f"{view.mean_ms:g} ms mean, {view.max_ms:g} ms longest"),
        ]
    )
    for mistake in view.unsaved:
        places = (("line", mistake.line), ("column", mistake.column))
        where = "".join(f", {name} {number}" for name, number in places if number)
        print(f"saved with a mistake{where}: {harmless(mistake.message)}")
    for error in view.errors[:ERRORS_MAX]:
        print(f"{clock(error.at)}  {harmless(error.message)}")
    if view.state is ScriptState.OFF:
        note("  next: mend it, then 'swarmesh policy activate FILE'; or 'swarmesh policy deactivate'")


def _watch(view: ScriptView) -> str:
    if view.gone:
        return " (gone: the text taken up last goes on, until another is saved there)"
    return " (watched)" if view.watched else ""


def _unwatched(view: ScriptView) -> str:
    if not view.name.endswith(SUFFIX):
        return f"not watched, as its name does not end in {SUFFIX}"
    return "not watched, as it is not on the queennode's machine"
