"""Argument lists for the system's ``ssh``. What works for the user by hand works here: settings, agent, jump hosts.

Only what could harm is decided here: nobody is asked anything, the host's key has to be the one that was shown when
the host was added, and nothing of the queen's machine is lent to the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from swarmesh.config.home import Home
from swarmesh.core.errors import ConfigError
from swarmesh.hosts.remote_command import REMOTE_COMMAND
from swarmesh.hosts.ssh_target import SshTarget

SSH: Final = "ssh"
CONNECT_TIMEOUT_S: Final = 10
ALIVE_INTERVAL_S: Final = 1
ALIVE_MISSED_MAX: Final = 4
"""With the interval: a link that carries nothing more is given up after about five seconds."""
_ALWAYS: Final = {
    "BatchMode": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "CheckHostIP": "no",
    "UpdateHostKeys": "no",
    "VerifyHostKeyDNS": "no",
    "HashKnownHosts": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "Tunnel": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "EscapeChar": "none",
    "ClearAllForwardings": "yes",
    "StreamLocalBindUnlink": "yes",
    "StreamLocalBindMask": "0177",
    "ServerAliveInterval": str(ALIVE_INTERVAL_S),
    "ServerAliveCountMax": str(ALIVE_MISSED_MAX),
    "ConnectTimeout": str(CONNECT_TIMEOUT_S),
    "ControlPersist": "no",
    "LogLevel": "INFO",
    "Compression": "no",
}
_LAST: Final = {"IgnoreUnknown": "*", "KnownHostsCommand": "none"}
"""No other source of keys than our file. An ssh before 8.5 does not know the option, and passes over it because of the
one before, which counts from there on: none of ours above is passed over. It is every name, and not that one, because
it takes the place of what the user's own configuration has there, and that must still be read to its end."""
_NO_LOGIN: Final = {
    "PreferredAuthentications": "none",
    "PubkeyAuthentication": "no",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "GSSAPIAuthentication": "no",
    "HostbasedAuthentication": "no",
}


def known_hosts_file(home: Home) -> Path:
    """Keys of all hosts that were added, each under `key_alias`."""
    return home.ssh_dir / "known_hosts"


def key_alias(name: str) -> str:
    """What a host's key is kept under: its address may change, and two addresses may be one machine."""
    return f"swarmesh-{name}"


def connect_argv(target: SshTarget, home: Home, control: Path | None = None) -> list[str]:
    """Run the remote command; with ``control`` other ssh processes can add forwards to this connection.

    Raises:
        ConfigError: A path cannot be told to ssh.
    """
    options = {
        **_ALWAYS,
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": quoted(known_hosts_file(home)),
        "HostKeyAlias": key_alias(target.name),
        "ControlMaster": "no" if control is None else "yes",
        "ControlPath": "none" if control is None else quoted(control),
    }
    return [*_ssh(target, options), "--", target.address, REMOTE_COMMAND]


def learn_argv(target: SshTarget, known_hosts: Path, key_types: Sequence[str]) -> list[str]:
    """Connect without logging in, so that the host's key is written into ``known_hosts``, which has to be empty.

    The host shows a key that takes one of the algorithms ``key_types`` if it can.
    """
    options = {
        **_ALWAYS,
        **_NO_LOGIN,
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": quoted(known_hosts),
        "HostKeyAlias": key_alias(target.name),
        "ControlMaster": "no",
        "ControlPath": "none",
    }
    if key_types:
        options["HostKeyAlgorithms"] = "^" + ",".join(key_types)
    return [*_ssh(target, options), "--", target.address, REMOTE_COMMAND]


def settings_argv(target: SshTarget) -> list[str]:
    """Have ssh print what the user's own configuration says about this host."""
    return [SSH, "-G", *_where(target), "--", target.address]


def forward_argv(control: Path, forward: Sequence[str], *, cancel: bool = False) -> list[str]:
    """Add a forward (``-L`` or ``-R`` and its value, see `socket_forward`) to a connection, or cancel it."""
    return [SSH, "-F", "none", "-S", escaped(control), "-O", "cancel" if cancel else "forward", *forward, "--", "host"]


def socket_forward(local: Path, place: str) -> list[str]:
    """A socket here that leads to ``place`` there: ``host:port`` or the path of a socket."""
    return ["-L", f"{_field(str(local))}:{_place(place)}"]


def reverse_forward(remote: str, place: str) -> list[str]:
    """A socket there that leads to ``place`` here: ``host:port`` or the path of a socket."""
    return ["-R", f"{_field(remote)}:{_place(place)}"]


def ssh_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The queen's environment, for the user's agent and configuration; messages in English, no window that asks."""
    return {**environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


def escaped(path: Path) -> str:
    """A path in which ssh finds nothing to put in.

    Raises:
        ConfigError: It contains what cannot be escaped.
    """
    text = str(path)
    if "${" in text or "\n" in text:
        raise ConfigError(f"ssh cannot be told of the path {text!r}", hint="Set SWARMESH_HOME to a plainer path.")
    return text.replace("%", "%%")


def quoted(path: Path) -> str:
    """A path as a value of ssh's configuration: blanks would end it otherwise."""
    text = escaped(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _ssh(target: SshTarget, options: Mapping[str, str]) -> list[str]:
    if target.identity:
        options = {**options, "IdentityFile": quoted(Path(target.identity)), "IdentitiesOnly": "yes"}
    written = [word for name, value in {**options, **_LAST}.items() for word in ("-o", f"{name}={value}")]
    return [SSH, "-T", "-x", "-a", *written, *_where(target)]


def _where(target: SshTarget) -> list[str]:
    port = ["-p", str(target.port)] if target.port else []
    return [*port, "-l", target.user] if target.user else port


def _place(place: str) -> str:
    return _field(place) if place.startswith("/") else place


def _field(path: str) -> str:
    return escaped(Path(path)).replace("\\", "\\\\").replace(":", "\\:")
