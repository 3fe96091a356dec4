"""How a command fails: what is printed to stderr, and with which exit code."""

from __future__ import annotations

import sys
from enum import IntEnum

import msgspec
from typer.exceptions import TyperException

from swarmesh.cli.screen import harmless
from swarmesh.core.errors import QueenUnreachableError, SwarmeshError
from swarmesh.wire.errors import ErrorBody, ErrorEnvelope, RemoteError, error_body


class ExitCode(IntEnum):
    """What scripts may rely on."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class UsageError(SwarmeshError):
    """The command line contradicts itself."""

    code = "usage_error"
    status = 400
    type = "invalid_request_error"


def given(name: str | None) -> str | None:
    """A name that may be left out, as it was typed.

    Raises:
        UsageError: It is empty, as a variable of the shell is that was never set: that must not mean all of them.
    """
    if name is not None and not name.strip():
        raise UsageError("the name is empty", hint="Leave it out to mean all of them.")
    return name


def needed(name: str) -> str:
    """A name that cannot be left out, as it was typed.

    Raises:
        UsageError: It is empty, as a variable of the shell is that was never set.
    """
    if not name.strip():
        raise UsageError("the name is empty", hint="Say which one; was a variable of the shell never set?")
    return name


def report(error: SwarmeshError, *, as_json: bool) -> ExitCode:
    """Print an error and return the exit code it means."""
    _print(error_body(error), as_json=as_json)
    if isinstance(error, RemoteError) and error.task_id and not as_json:
        print(f"  next: swarmesh explain refusal {harmless(error.task_id)}", file=sys.stderr)
    match error:
        case UsageError():
            return ExitCode.USAGE
        case QueenUnreachableError():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILED


def report_usage(error: TyperException, *, as_json: bool) -> int:
    """Print what Typer could not understand; a command without arguments has printed its help already."""
    message = error.format_message()
    if message:
        context = getattr(error, "ctx", None)
        hint = f"{context.command_path} --help" if context is not None else "add --help to see the options"
        _print(ErrorBody(UsageError.code, message, hint, type=UsageError.type), as_json=as_json)
    return error.exit_code


def _print(body: ErrorBody, *, as_json: bool) -> None:
    if as_json:
        text = msgspec.json.encode(ErrorEnvelope(body)).decode()
    else:
        text = f"error: {harmless(body.message)}" + (f"\n  next: {harmless(body.hint)}" if body.hint else "")
    print(text, file=sys.stderr)
