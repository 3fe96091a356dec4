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
from swarmesh.cli import rustbee as rustbee_module
from swarmesh.config.home import Home, QueenFile, write_private
from swarmesh.hosts.host import HostFacts, SpawnedAgent
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import identify
from swarmesh.wire.spec import WorkerSpec

AGENT = """
import http.server, json, socketserver, sys
spec = json.load(sys.stdin)
class Health(http.server.BaseHTTPRequestHandler):
    looks = 0
    def do_GET(self):
        Health.looks += 1
        asked = (self.path, self.headers["authorization"])
        healthy = Health.looks > 2 and asked == ("/health", "Bearer " + spec["key"])
        body = json.dumps({"status": "healthy" if healthy else "starting"}).encode()
        self.send_response(200 if healthy else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
socketserver.UnixStreamServer(spec["socket_path"], Health).serve_forever()
"""
"""Says that it is healthy when it is asked for the third time, with the right key."""


class HostOfStandIns(LocalHost):
    """The real host, but for the agent's program: what it starts only tells its health, or ends at once."""

    program = AGENT
    total_mib = 100_000

    async def probe(self) -> HostFacts:
        return msgspec.structs.replace(await super().probe(), total_mib=self.total_mib, available_mib=self.total_mib)

    def _start(self, work_dir: Path) -> subprocess.Popen[bytes]:
        with (work_dir / "agent.out").open("wb") as out:
            return subprocess.Popen([sys.executable, "-c", self.program], stdin=subprocess.PIPE, stdout=out, stderr=out)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    hosts: list[HostOfStandIns] = []

    def host(home: Home) -> HostOfStandIns:
        hosts.append(HostOfStandIns(home))
        return hosts[-1]

    monkeypatch.setattr(rustbee_module, "LocalHost", host)
    with shell_at(tmp_path / "home", monkeypatch, capsys) as shell:
        yield shell
    for child in [child for host in hosts for child in host._children.values()]:
        child.kill()
        child.wait()


def queen_runs(shell: Shell, url: str = "") -> None:
    me = psutil.Process()
    note = QueenFile(url or shell.queen.url, me.pid, me.create_time(), "0.1.0")
    shell.home.mkdir(exist_ok=True)
    write_private(shell.home / "queen.json", msgspec.json.encode(note))


@pytest.mark.parametrize("program", ["swarmesh", "llorch-pool"])
def test_spawn_list_stop(shell: Shell, program: str) -> None:
    spawned = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo", "--json", program=program)
    assert spawned.code == 0
    assert "no queennode is there now" in spawned.err
    rustbee_id, pid = spawned.json["rustbee_id"], spawned.json["pid"]
    assert spawned.json["status"] == "healthy"
    (listed,) = shell.run("rustbee", "list", "--json", program=program).json
    assert (listed["rustbee_id"], listed["modelcell"], listed["pid"]) == (rustbee_id, "demo", pid)
    table = shell.run("rustbee", "list", program=program).out.splitlines()
    assert table[1].split()[:2] == [rustbee_id, "demo"]
    stopped = shell.run("rustbee", "stop", rustbee_id, "--grace", "5", program=program)
    assert (stopped.code, stopped.out) == (0, f"{rustbee_id} has ended\n")
    assert identify(pid) is None
    empty = shell.run("rustbee", "list", program=program)
    assert (empty.code, empty.out) == (0, "")


def test_spawn_asks_the_agent_and_no_queen(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    queen_runs(shell)
    spawned: list[WorkerSpec] = []

    async def spawn(self: HostOfStandIns, spec: WorkerSpec) -> SpawnedAgent:
        spawned.append(spec)
        return await LocalHost.spawn(self, spec)

    monkeypatch.setattr(HostOfStandIns, "spawn", spawn)
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo", "--slots", "2", "--context", "512")
    assert (result.code, result.err) == (0, "")
    assert f"{spawned[0].rustbee_id} is healthy, pid " in result.out
    assert (spawned[0].slots, spawned[0].context_tokens, spawned[0].backend) == (2, 512, "cpu")
    assert shell.queen.seen == []


def test_on_a_host_that_is_lent_there_is_neither_a_port_nor_an_admin_key(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SWARMESH_URL", "SWARMESH_API_KEY"):
        monkeypatch.delenv(name)
    queen_runs(shell, "unix:/home/bee/.swarmesh/hives/1/run/queen-1.sock")
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo", "--json")
    assert (result.code, result.err, result.json["status"]) == (0, "", "healthy")
    assert shell.run("rustbee", "stop", result.json["rustbee_id"], "--grace", "5").code == 0
    for command in (["rustbees", "list"], ["down", "--all"], ["queennode", "stop"], ["queennode", "start"], ["up"]):
        refused = shell.run(*command)
        assert refused.code == 3, command
        assert "belongs to a queennode on another machine" in refused.err
        assert "Give this command on her machine" in refused.err


def test_spawn_need_not_wait(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostOfStandIns, "program", "import signal; signal.pause()")
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo", "--no-wait", "--json")
    assert (result.code, result.json["status"]) == (0, "starting")


def test_an_agent_that_never_gets_healthy(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostOfStandIns, "program", "import signal; signal.pause()")
    monkeypatch.setattr(rustbee_module, "LOAD_WAIT_S_MAX", 0.0)
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo")
    assert result.code == 1
    assert "error: still not healthy after" in result.err
    assert "'swarmesh rustbee stop rustbee-" in result.err


def test_an_agent_that_ends_while_starting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostOfStandIns, "program", "import sys; sys.stdin.read(); print('no such engine')")
    result = shell.run("rustbee", "spawn", "cpu", "--modelcell", "demo")
    assert result.code == 1
    assert "ended while it was starting" in result.err
    assert "no such engine" in result.err


def test_a_model_that_does_not_fit(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostOfStandIns, "total_mib", 3)
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
