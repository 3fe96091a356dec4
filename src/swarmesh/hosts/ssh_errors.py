"""Why a host cannot be reached: what ssh said, as errors with codes of their own.

ssh has one exit code (255) for everything that is its own affair, so its messages are read; they are in English because
`swarmesh.hosts.ssh_command.ssh_environment` asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.remote_command import NO_PYTHON_MARK
from swarmesh.hosts.remote_process import Explain
from swarmesh.hosts.said import plain
from swarmesh.hosts.ssh_target import SshTarget, has_passphrase

SSH_FAILED: Final = 255
QUOTED_CHARS_MAX: Final = 300
LINES_READ_MAX: Final = 50
LINE_CHARS_MAX: Final = 1024
"""What is read of what ssh left behind: the last lines, and the begin of each."""


class HostUnreachableError(SwarmeshError):
    """The host cannot be reached."""

    code = "host_unreachable"
    status = 502
    default_hint = "See that it is on and that ssh to it works by hand; Swarmesh tries again by itself."

    passing: bool = True
    """Whether time alone may mend it."""


class HostLostError(HostUnreachableError):
    """The connection to the host broke."""

    code = "host_lost"
    default_hint = "Swarmesh connects again by itself; rustbees there go on meanwhile."


class HostSlowError(HostUnreachableError):
    """The host is connected, but has not answered in time."""

    code = "host_slow"
    default_hint = "It may be busy, or its disk slow; whether it was done is not known. Try again in a while."


class HostSetupError(HostUnreachableError):
    """Somebody has to change something before the host can be reached."""

    code = "host_ssh_failed"
    default_hint = "Try ssh to it by hand; 'ssh -v' says more."
    passing = False


class HostOutdatedError(HostSetupError):
    """The host has another version of Swarmesh, which does not understand this one."""

    code = "host_outdated"
    default_hint = "Add the host again: that installs the same version."


class HostKeyUnknownError(HostSetupError):
    """No key of this host is known."""

    code = "host_key_unknown"
    default_hint = "'swarmesh hosts add ADDRESS' learns it. A jump host on the way has to be known to your own ssh."


class HostKeyChangedError(HostSetupError):
    """The host shows another key than before."""

    code = "host_key_changed"
    default_hint = (
        "If it was installed anew: 'swarmesh hosts remove NAME', then add it with --fingerprint and the new key's. "
        "If not, somebody may stand between you and it."
    )


class HostDeniedError(HostSetupError):
    """The host does not let us in."""

    code = "host_denied"


class HostIdentityError(HostSetupError):
    """The private key cannot be used."""

    code = "host_identity_bad"


class HostWithoutPythonError(HostSetupError):
    """The host has no Python that is new enough."""

    code = "host_without_python"
    default_hint = "Install Python 3.11 or newer there, so that 'python3' is found by a plain 'ssh HOST python3'."


class HostCommandError(HostUnreachableError):
    """What was run on the host ended with an error of its own."""

    code = "host_command_failed"
    default_hint = "'swarmesh hosts doctor NAME' looks at what the host needs."


class HostForwardError(HostUnreachableError):
    """The host does not forward sockets."""

    code = "host_forwarding_refused"
    default_hint = "Its sshd has to allow it: AllowTcpForwarding and AllowStreamLocalForwarding in sshd_config."


class SshMissingError(HostSetupError):
    """There is no ssh on the queen's machine."""

    code = "ssh_missing"
    default_hint = "Install OpenSSH's client, so that 'ssh' is found in PATH."


_IDENTITY: Final = re.compile(
    r"^(Load key .*|Permissions .* are too open.*|Warning: Identity file .* not accessible.*|no such identity: .*)$"
)
_LOST: Final = re.compile(
    r"closed by remote host|Broken pipe|Connection reset|client_loop: |not responding|Connection corrupted|"
    r"message authentication code incorrect"
)
_Reading = Callable[[SshTarget, re.Match[str], Sequence[str]], SwarmeshError]
"""Makes an error of what was found in a line of ssh's, and of all its lines."""


def explain(target: SshTarget) -> Explain:
    """Read what ssh to this host left behind: its exit code (negative for a signal) and its standard error."""

    def explained(code: int, said: str) -> SwarmeshError:
        lines = [plain(line, LINE_CHARS_MAX) for line in said.splitlines()[-LINES_READ_MAX:]]
        if code == SSH_FAILED:
            return _of_ssh(target, lines)
        if code == 127 and any(NO_PYTHON_MARK in line for line in lines):
            return HostWithoutPythonError(f"{target.name} has no Python 3.11 or newer")
        if code < 0:
            return HostLostError(f"the connection to {target.name} was ended by signal {-code}")
        return HostCommandError(f"{target.name} ended the connection (exit code {code}): {_last(lines)}")

    return explained


def _of_ssh(target: SshTarget, lines: Sequence[str]) -> SwarmeshError:
    for pattern, read in _READINGS:
        if found := _search(pattern, lines):
            return read(target, found, lines)
    return HostSetupError(f"ssh to {_where(target)} failed: {_last(lines)}")


def _search(pattern: re.Pattern[str], lines: Sequence[str]) -> re.Match[str] | None:
    return next((found for line in lines if (found := pattern.search(line))), None)


def _changed(target: SshTarget, _found: re.Match[str], _said: Sequence[str]) -> SwarmeshError:
    return HostKeyChangedError(f"{_where(target)} shows another key than the one it was added with")


def _unknown(target: SshTarget, _found: re.Match[str], _said: Sequence[str]) -> SwarmeshError:
    return HostKeyUnknownError(f"no key of {_where(target)} is known")


def _disagreed(target: SshTarget, found: re.Match[str], _said: Sequence[str]) -> SwarmeshError:
    return HostSetupError(f"{_where(target)} and ssh here agree on no method: {_cut(found.group())}")


def _unnamed(target: SshTarget, found: re.Match[str], _said: Sequence[str]) -> SwarmeshError:
    return HostUnreachableError(f"{_where(target)} has no address: {_cut(found.group())}", hint="Check the spelling.")


def _unreached(target: SshTarget, found: re.Match[str], _said: Sequence[str]) -> SwarmeshError:
    return HostUnreachableError(f"{_where(target)} cannot be reached: {_cut(found.group(1).lower())}")


def _lost(target: SshTarget, _found: re.Match[str], said: Sequence[str]) -> SwarmeshError:
    return HostLostError(f"the connection to {_where(target)} broke: {_last(said)}")


def _denied(target: SshTarget, found: re.Match[str], said: Sequence[str]) -> SwarmeshError:
    where, methods = _where(target), found.group(1) or ""
    if target.identity:
        if bad := _search(_IDENTITY, said):
            return HostIdentityError(
                f"the key for {where} cannot be used: {_cut(bad.group())}",
                hint=f"The file has to be a private key that only you can read: chmod 600 {target.identity}",
            )
        if has_passphrase(Path(target.identity)):
            return HostIdentityError(
                f"the key {target.identity} for {where} has a passphrase and no agent holds it",
                hint=f"Load it before 'swarmesh up': ssh-add {target.identity}",
            )
    login = f"{target.user}@{target.address}" if target.user else target.address
    if methods and "publickey" not in methods:
        return HostDeniedError(
            f"{where} takes no keys, only {methods.replace(',', ', ')}",
            hint="Swarmesh never types passwords. Allow keys there (PubkeyAuthentication in sshd_config), "
            f"then: ssh-copy-id {login}",
        )
    return HostDeniedError(
        f"{where} accepted none of our keys" + (f" (it takes {methods.replace(',', ', ')})" if methods else ""),
        hint=f"Swarmesh never types passwords. Put your key there: ssh-copy-id {login}; "
        "or name another key with --identity.",
    )


def _where(target: SshTarget) -> str:
    return f"{target.name} ({target.address})"


def _last(lines: Sequence[str]) -> str:
    return _cut(next((line for line in reversed(lines) if line), "it said nothing"))


def _cut(text: str) -> str:
    return text if len(text) <= QUOTED_CHARS_MAX else text[:QUOTED_CHARS_MAX] + "\N{HORIZONTAL ELLIPSIS}"


_READINGS: Final[tuple[tuple[re.Pattern[str], _Reading], ...]] = (
    (re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|^Host key for .* has changed"), _changed),
    (re.compile(r"^No .*host key is known for|^Host key verification failed"), _unknown),
    (re.compile(r"^Unable to negotiate .*$"), _disagreed),
    (re.compile(r"Permission denied \(([a-z0-9@.,-]*)\)|Too many authentication failures"), _denied),
    (re.compile(r"Could not resolve hostname .*$"), _unnamed),
    (re.compile(r"^ssh: connect to host .*: (.+)$"), _unreached),
    (re.compile(r"^((?:Connection to|banner exchange:) .*timed out.*|Connection timed out.*)$"), _unreached),
    (re.compile(r"^(?:kex|ssh)_exchange_identification: (.*)$"), _unreached),
    (_LOST, _lost),
    (re.compile(r"^(Connection closed by .*)$"), _unreached),
)
"""What ssh says, the most telling first: a jump host's own end is followed by that of what went through it. Each looks
at one line; none has two repetitions of anything that could share the same text, so that no line takes long."""
