"""`swarmesh rustbee`, which is also `llorch-pool`: workers of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from cli_shell import Shell, shell_at
from fake_queen import rustbee
from swarmesh.cli import rustbee as rustbee_module
from swarmesh.config.home import Home, QueenFile, write_private
from swarmesh.hosts.host import HostFacts, SpawnedAgent
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import identify
from swarmesh.wire.spec import WorkerSpec


class HostOfSleepers(LocalHost):
    """The real host, but for the agent's program: what it starts only waits, or ends at once."""

    program = "import signal; signal.pause()"
    total_mib = 100_000

    async def probe(self) -> HostFacts:
        return msgspec.structs.replace(await super().probe(), total_mib=self.total_mib, available_mib=self.total_mib)

    def _start(self, work_dir: Path) -> subprocess.Popen[bytes]:
        with (work_dir / "agent.out").open("wb") as out:
            return subprocess.Popen([sys.executable, "-c", self.program], stdin=subprocess.PIPE, stdout=out, stderr=out)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    hosts: list[HostOfSleepers] = []

    def host(home: Home) -> HostOfSleepers:
        hosts.append(HostOfSleepers(home))
        return hosts[-1]

    monkeypatch.setattr(rustbee_module, "LocalHost", host)
    with shell_at(tmp_path / "home", monkeypatch, capsys) as shell:
        yield shell
    for child in [child for host in hosts for child in host._children.values()]:
        child.kill()
        child.wait()


def queen_runs(shell: Shell) -> None:
    me = psutil.Process()
    note = QueenFile(shell.queen.url, me.pid, me.create_time(), "0.1.0")
    shell.home.mkdir(exist_ok=True)
    write_private(shell.home / "queen.json", msgspec.json.encode(note))


@pytest.mark.parametrize("program", ["swarmesh", "llorch-pool"])
def test_spawn_list_stop(shell: Shell, program: str) -> None:
    spawned = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo", "--json", program=program)
    assert spawned.code == 0
    assert "no queennode runs here" in spawned.err
    rustbee_id, pid = spawned.json["rustbee_id"], spawned.json["pid"]
    assert spawned.json["status"] == "starting"
    (listed,) = shell.run("rustbee", "list", "--json", program=program).json
    assert (listed["rustbee_id"], listed["modelcell"], listed["pid"]) == (rustbee_id, "demo", pid)
    table = shell.run("rustbee", "list", program=program).out.splitlines()
    assert table[1].split()[:2] == [rustbee_id, "demo"]
    stopped = shell.run("rustbee", "stop", rustbee_id, "--grace", "5", program=program)
    assert (stopped.code, stopped.out) == (0, f"{rustbee_id} has ended\n")
    assert identify(pid) is None
    empty = shell.run("rustbee", "list", program=program)
    assert (empty.code, empty.out) == (0, "")


def test_spawn_waits_until_the_queen_knows_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    queen_runs(shell)
    spawned: list[WorkerSpec] = []

    async def spawn(self: HostOfSleepers, spec: WorkerSpec) -> SpawnedAgent:
        spawned.append(spec)
        shell.queen.rustbees[spec.rustbee_id] = rustbee(spec.rustbee_id, status="starting")
        return await LocalHost.spawn(self, spec)

    monkeypatch.setattr(HostOfSleepers, "spawn", spawn)
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo", "--slots", "2", "--context", "512")
    assert result.code == 0
    assert f"{spawned[0].rustbee_id} is healthy, pid " in result.out
    assert (spawned[0].slots, spawned[0].context_tokens, spawned[0].backend) == (2, 512, "cpu")


def test_an_agent_that_ends_while_starting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    queen_runs(shell)
    monkeypatch.setattr(HostOfSleepers, "program", "import sys; sys.stdin.read(); print('no such engine')")
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo")
    assert result.code == 1
    assert "ended while it was starting" in result.err
    assert "no such engine" in result.err


def test_a_model_that_does_not_fit(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostOfSleepers, "total_mib", 3)
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo")
    assert result.code == 1
    assert "this host has 3 MiB available of 3 MiB" in result.err


def test_what_is_not_there(shell: Shell) -> None:
    unknown = shell.run("rustbee", "spawn", "cpu", "--modelcell", "dem")
    assert unknown.code == 1
    assert "no modelcell is called 'dem'" in unknown.err
    missing = shell.run("rustbee", "stop", "rustbee-1")
    assert missing.code == 1
    assert "no rustbee 'rustbee-1' runs on this machine" in missing.err
    path = shell.run("rustbee", "stop", "../../etc")
    assert path.code == 1


def test_llorch_pool_has_the_hosts_commands_only(shell: Shell) -> None:
    assert "rustbee" in shell.run(program="llorch-pool").out
    result = shell.run("nectarflow", "list", program="llorch-pool")
    assert result.code == 2
    assert "No such command 'nectarflow'" in result.err
    assert shell.run("version", program="llorch-pool").code == 0


def test_bad_settings_are_an_error(shell: Shell) -> None:
    shell.home.mkdir()
    (shell.home / "swarmesh.toml").write_text("[rustbee]\nslotz = 3\n")
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo")
    assert result.code == 1
    assert "rustbee.slotz" in result.err
