"""A host as the queen has it over SSH, and who watches it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import psutil

from sshd_rig import SshdRig, no_software
from swarmesh.config.home import Home
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.hosts.ssh_shell import SshShell

HIVE = "0123456789ab"
SECRET = bytes(range(32))
NOBODY = "http://127.0.0.1:9"


class Seen:
    """A `Watcher` that writes down what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.busy = False
        self._news = asyncio.Event()

    def host_up(self, host: SshHost) -> None:
        self._note("up")

    def host_down(self, host: SshHost, error: SwarmeshError) -> None:
        self._note(error.code)

    def host_busy(self, host: SshHost) -> bool:
        return self.busy

    async def wait(self, *words: str, timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(timeout_s):
            while self.words != list(words):
                self._news.clear()
                await self._news.wait()

    def _note(self, word: str) -> None:
        self.words.append(word)
        self._news.set()


def make_host(rig: SshdRig, home: Home, seen: Seen, address: Callable[[], str] = lambda: NOBODY) -> SshHost:
    return SshHost(
        SshShell(rig.target(), home),
        home,
        hive=HIVE,
        secret=SECRET,
        software=no_software,
        queen_address=address,
        watcher=seen,
    )


def ssh_children(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # It ended a moment ago, as short runs of ssh do.
            if child.name() == "ssh" and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found
