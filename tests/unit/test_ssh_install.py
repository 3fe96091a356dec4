"""Looking at a host and installing there, with a host that says the wrong thing or nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts import install as install_module
from swarmesh.hosts.install import MachineFacts, install, look, uninstall
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.software import Software
from swarmesh.hosts.ssh_errors import HostSetupError, HostSlowError, HostUnreachableError
from swarmesh.wire.hosts import Step

FACTS = {
    "python": "/usr/bin/python3",
    "python_version": [3, 12, 1],
    "system": "Linux",
    "machine": "x86_64",
    "libc": ["glibc", "2.36"],
    "macos": "",
    "user_home": "/home/u",
    "root": "/home/u/.swarmesh",
    "disk_free_mib": 1,
    "ready": True,
}


class Scripted:
    """A host that reads its order and says these lines; then it is silent until it is left."""

    def __init__(self, *lines: object) -> None:
        self._said = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        self.processes: list[RemoteProcess] = []

    async def start(self, order: Mapping[str, Any]) -> RemoteProcess:
        program = f"import os, sys\nos.write(1, {self._said!r})\nsys.stdin.buffer.read()"
        self.processes.append(await RemoteProcess.start([sys.executable, "-c", program], order, _ended))
        return self.processes[-1]


def _ended(code: int, said: str) -> SwarmeshError:
    return HostUnreachableError(f"{code}: {said}")


@pytest.fixture
def software(tmp_path: Path) -> Software:
    paths = [tmp_path / name for name in ("wheel", "pip", "lock")]
    for path in paths:
        path.write_bytes(b"x")
    return Software(digest="a" * 16, wheel=paths[0], pip=paths[1], lock=paths[2])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SILENCE_S", "UNINSTALL_SILENCE_S", "INSTALL_SILENCE_S"):
        monkeypatch.setattr(install_module, name, 0.5)


async def test_what_a_host_is_comes_plainly() -> None:
    facts = await look(Scripted({"done": {**FACTS, "machine": "x86\u001b[2J"}}), "a")
    assert facts.machine == "x86 [2J"
    assert facts.python_version == (3, 12, 1)


@pytest.mark.parametrize(
    "done",
    [{}, {**FACTS, "python_version": [3, 12]}, {**FACTS, "python_version": [3, 12, 10**9]}, {**FACTS, "ready": "?"}, 7],
)
async def test_facts_that_are_none_are_a_named_error(done: object) -> None:
    with pytest.raises(HostSetupError, match="cannot be understood"):
        await look(Scripted({"done": done}), "a")


@pytest.mark.usefixtures("impatient")
async def test_a_host_that_says_nothing_is_left(software: Software) -> None:
    silent = Scripted({"step": {"step": "look", "state": "running"}})
    with pytest.raises(HostSlowError, match=r"nothing was heard of the host for 0\.5 s"):
        await look(silent, "a")
    with pytest.raises(HostSlowError):
        await uninstall(silent, "a", keep_models=True)
    with pytest.raises(HostUnreachableError, match="stands still") as caught:
        await install(silent, software, software.lock.parent, lambda _: None, hive="a")
    assert caught.value.code == "host_install_failed"
    for process in silent.processes:
        assert await process.close() == -9, "it was closed"


async def test_steps_come_plainly(software: Software) -> None:
    steps: list[Step] = []
    said = {"step": {"step": "look", "state": "done", "text": "\u001b[2Jx" + "y" * 10_000}}
    await install(Scripted(said, {"done": FACTS}), software, software.lock.parent, steps.append, hive="a")
    assert steps[0].text.startswith("[2Jxyyy")
    assert len(steps[0].text) == 301


def test_facts_of_an_older_host_are_facts() -> None:
    assert msgspec.convert(FACTS, MachineFacts).known_as == ""
