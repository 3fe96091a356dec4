"""Keys of hosts: learned once, when a host is added, and kept in a file of our own that every connection is held to."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.config.home import Home, write_private
from swarmesh.hosts.ssh_command import CONNECT_TIMEOUT_S, key_alias, known_hosts_file, learn_argv, settings_argv
from swarmesh.hosts.ssh_errors import (
    HostKeyChangedError,
    HostKeyUnknownError,
    HostSetupError,
    HostUnreachableError,
    explain,
)
from swarmesh.hosts.ssh_target import SshTarget
from swarmesh.hosts.ssh_tool import run_tool

LEARN_WAIT_S: Final = 3.0 * CONNECT_TIMEOUT_S
"""A jump host on the way has a time of its own to answer in."""
LOOKUP_WAIT_S: Final = 10.0
SSH_PORT: Final = 22
_ALGORITHMS: Final = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""What asks for a key of this type. Of other types not every ssh knows, and one that does not would fail."""


class HostKey(msgspec.Struct, frozen=True):
    """A host's key as people compare it; ``known_to_user`` when their own ssh trusts exactly this key."""

    fingerprint: str
    key_type: str
    known_to_user: bool


class _Key(msgspec.Struct, frozen=True):
    """As known_hosts has it: type and blob in base64."""

    key_type: str
    blob: str

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


async def learn_host_key(target: SshTarget, home: Home, *, expected: str = "") -> HostKey:
    """Ask the host for its key, check it against all that is known, and keep it under the host's name.

    Nothing is logged in to. Where nothing is known, the key is taken as it comes: the caller shows its fingerprint.

    ``expected`` is the ``SHA256:...`` that it has to have; then what the user's own ssh knows does not matter.

    Raises:
        HostKeyChangedError: It is not the one that is expected, kept, or known to the user's own ssh; nothing is kept.
        HostKeyUnknownError: The user's own ssh knows an authority for it, and nothing was expected; nothing is kept.
        SwarmeshError: The host cannot be reached.
    """
    kept = _kept(target.name, home)
    lines = await _known_to_user(target)
    users, revoked = _parsed(lines), _parsed(lines, marker="@revoked")
    offered = await _offered(target, [kept.key_type] if kept else [key.key_type for key in users])
    if expected and _bare(expected) != _bare(offered.fingerprint):
        raise _changed(target, offered, f"{expected} was expected")
    if kept is not None and kept != offered:
        raise _changed(target, offered, f"{kept.fingerprint} was kept when it was added")
    if offered in revoked:
        raise _changed(target, offered, "your own ssh has it marked as revoked")
    if users and offered not in users and not expected and kept is None:
        shown = ", ".join(key.fingerprint for key in users)
        raise _changed(target, offered, f"your own ssh knows it by {shown}")
    if _parsed(lines, marker="@cert-authority") and not users and not expected and kept is None:
        raise HostKeyUnknownError(
            f"your own ssh trusts {target.name} ({target.address}) by an authority that signs keys, "
            "and Swarmesh holds a host to one key",
            hint="Add it with --fingerprint: its owner sees it there with 'ssh-keygen -l -f' on the public host key.",
        )
    if kept is None:
        _keep(target.name, home, offered)
    return HostKey(offered.fingerprint, offered.key_type, known_to_user=offered in users)


def forget_host_key(target_name: str, home: Home) -> None:
    """Drop a host's key; harmless when none is kept."""
    if _kept(target_name, home) is not None:
        _write(home, _others(target_name, home))


def _changed(target: SshTarget, offered: _Key, instead: str) -> HostKeyChangedError:
    return HostKeyChangedError(f"{target.name} ({target.address}) shows the key {offered.fingerprint}, but {instead}")


def _bare(fingerprint: str) -> str:
    return fingerprint.strip().removeprefix("SHA256:").rstrip("=")


async def _offered(target: SshTarget, known_types: list[str]) -> _Key:
    algorithms = [name for known in dict.fromkeys(known_types) for name in _ALGORITHMS.get(known, ())]
    with tempfile.TemporaryDirectory(prefix="swarmesh-key-") as aside:
        file = Path(aside) / "known_hosts"
        try:
            run = await run_tool(learn_argv(target, file, algorithms), LEARN_WAIT_S)
        except TimeoutError as error:
            raise HostUnreachableError(
                f"{target.name} ({target.address}) showed no key in {LEARN_WAIT_S:g} s"
            ) from error
        keys = _parsed(file.read_text("ascii", "replace") if file.exists() else "")
    if keys:
        return keys[0]
    reason = explain(target)(run.code, run.said)
    if isinstance(reason, HostKeyUnknownError):  # Not the host's own, which would have been taken.
        raise HostKeyUnknownError(
            f"the way to {target.name} ({target.address}) leads through a host that your own ssh does not know",
            hint=f"Connect once by hand: ssh {target.address}",
        )
    raise reason


async def _known_to_user(target: SshTarget) -> str:
    """The lines about this host in the files that the user's own ssh looks into."""
    run = await _look(settings_argv(target))
    settings = [line.partition(" ")[::2] for line in run.splitlines()]
    first = dict(reversed(settings))
    port = int(first.get("port") or SSH_PORT)
    host = first.get("hostkeyalias") or first.get("hostname") or target.address
    name = host if port == SSH_PORT or "hostkeyalias" in first else f"[{host}]:{port}"
    files = f"{first.get('userknownhostsfile', '')} {first.get('globalknownhostsfile', '')}".split()
    return "".join([await _look(["ssh-keygen", "-F", name.lower(), "-f", file]) for file in files])


async def _look(argv: list[str]) -> str:
    try:
        return (await run_tool(argv, LOOKUP_WAIT_S)).out
    except TimeoutError as error:  # What is known was not seen; that is not the same as nothing.
        raise HostSetupError(
            f"{argv[0]} did not say within {LOOKUP_WAIT_S:g} s what your own ssh knows about this host",
            hint="A 'Match exec' of your ssh configuration, or a file on a disk that does not answer, may hang.",
        ) from error


def _kept(name: str, home: Home) -> _Key | None:
    alias = key_alias(name)
    keys = _parsed("\n".join(line for line in _lines(home) if line.split(" ", 1)[0] == alias))
    return keys[0] if keys else None


def _keep(name: str, home: Home, key: _Key) -> None:
    _write(home, [*_others(name, home), f"{key_alias(name)} {key.key_type} {key.blob}"])


def _others(name: str, home: Home) -> list[str]:
    return [line for line in _lines(home) if line.split(" ", 1)[0] != key_alias(name)]


def _lines(home: Home) -> list[str]:
    file = known_hosts_file(home)
    return file.read_text("ascii", "replace").splitlines() if file.exists() else []


def _write(home: Home, lines: list[str]) -> None:
    home.ssh_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(known_hosts_file(home), "".join(f"{line}\n" for line in lines).encode())


def _parsed(text: str, *, marker: str = "") -> list[_Key]:
    """Keys in lines of known_hosts with this marker. Authorities that sign keys are left out: they name none."""
    keys = []
    for line in text.splitlines():
        fields = line.split()
        if line.startswith("@") and fields.pop(0) != marker:
            continue
        if len(fields) < 3 or line.startswith("#") or bool(marker) != line.startswith("@"):
            continue
        with contextlib.suppress(binascii.Error):
            base64.b64decode(fields[2], validate=True)
            keys.append(_Key(fields[1], fields[2]))
    return keys
