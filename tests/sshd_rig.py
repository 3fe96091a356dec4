"""A real sshd on 127.0.0.1 with keys, port and a user's home of its own: a host without a machine."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from swarmesh.config.home import Home
from swarmesh.hosts.host_key import learn_host_key
from swarmesh.hosts.software import Software
from swarmesh.hosts.ssh_target import SshTarget

SSHD = Path("/usr/sbin/sshd")
DIGEST = "0123456789abcdef"
PORTS = range(20_000, 30_000)


def missing() -> str:
    """Why there can be no sshd here; empty when there can."""
    if not SSHD.exists():
        return f"{SSHD} is not installed"
    if not (shutil.which("ssh") and shutil.which("ssh-keygen")):
        return "OpenSSH's client is not installed"
    if os.getuid() == 0 and not Path("/run/sshd").is_dir():
        with suppress(OSError):
            Path("/run/sshd").mkdir(mode=0o755)
        if not Path("/run/sshd").is_dir():
            return "/run/sshd is missing and cannot be made"
    return ""


class SshdRig:
    """One sshd. ``login_home`` is what a login there takes for the user's home."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.login_home = directory / "far-home"
        self.login_home.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.key = make_key(directory / "user-key")
        make_key(directory / "host-key")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, **options: str) -> None:
        """Listen; ``options`` are lines of sshd_config that replace those here."""
        shutil.copy(f"{self.key}.pub", self.directory / "authorized")
        lines = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(self.directory / "host-key"),
            "AuthorizedKeysFile": str(self.directory / "authorized"),
            "UsePAM": "no",
            "StrictModes": "no",
            "PidFile": "none",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "SetEnv": f"HOME={self.login_home} TMPDIR={tempfile.gettempdir()}",
            **options,
        }
        config = self.directory / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        self._process = await asyncio.create_subprocess_exec(
            str(SSHD), "-D", "-e", "-f", str(config), stderr=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert self._process.stderr is not None
        while not (line := await self._process.stderr.readline()).startswith(b"Server listening"):
            assert line, "sshd did not start"
        self._draining = asyncio.create_task(self._process.stderr.read())

    @property
    def connections(self) -> list[psutil.Process]:
        """Its processes, one or two for each connection."""
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
            return [child for child in children if child.name().startswith("sshd")]
        return []

    def cut(self) -> None:
        """End every connection there is, as if the network had."""
        self.signal(signal.SIGKILL)

    def signal(self, signum: signal.Signals) -> None:
        """To every process that carries a connection."""
        for child in self.connections:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signum)

    async def stop(self) -> None:
        """Nobody listens any more, and nothing is connected."""
        if self._process is None:
            return
        children = self.connections
        with suppress(ProcessLookupError):
            self._process.terminate()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        await self._process.wait()
        await self._draining
        self._process = None

    def target(self, **changes: Any) -> SshTarget:
        fields = {"name": "far", "address": "127.0.0.1", "port": self.port, "identity": str(self.key), **changes}
        return SshTarget(**fields)

    def install_this(self, digest: str = DIGEST) -> None:
        """Have this environment's software there, without a copy of it."""
        env = self.login_home / ".swarmesh" / "envs" / digest
        (env / "bin").mkdir(parents=True)
        python = env / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o700)
        (env / ".ready").write_text(str(python.resolve()))

    def far_home(self, hive: str) -> Home:
        """The home of a hive's workers there."""
        return Home(self.login_home / ".swarmesh" / "hives" / hive)


@asynccontextmanager
async def running_sshd(directory: Path, home: Home, **options: str) -> AsyncIterator[SshdRig]:
    """An sshd whose key is known to ``home`` under the name ``far``."""
    rig = SshdRig(directory)
    await rig.start(**options)
    try:
        await learn_host_key(rig.target(), home)
        yield rig
    finally:
        await rig.stop()


async def no_software() -> Software:
    """For hosts that have it: only its digest is looked at."""
    nowhere = Path("/nowhere")
    return Software(digest=DIGEST, wheel=nowhere, pip=nowhere, lock=nowhere)


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    if not path.exists():
        subprocess.run(
            [shutil.which("ssh-keygen") or "ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    return path


def free_port() -> int:
    """Below those that the kernel gives to whoever connects: it stays free while its sshd is down, or not yet up."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port of {PORTS} is free")
