"""What every host promises to the queen: this machine, and one behind a real sshd."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import psutil
import pytest

from rustbee_rig import KEY, LittleQueen, make_spec
from sshd_rig import SshdRig, missing, no_software, running_sshd
from swarmesh.config.home import Home, QueenFile
from swarmesh.core.errors import ConflictError, NotFoundError, SwarmeshError
from swarmesh.hosts.agent_file import AgentFile, read_agent_file
from swarmesh.hosts.host import Host
from swarmesh.hosts.host_key import learn_host_key
from swarmesh.hosts.local import DEAD_DIRS_KEPT, LocalHost
from swarmesh.hosts.process_identity import identify
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.hosts.ssh_shell import SshShell
from swarmesh.wire.spec import WorkerSpec

SECRET_IN_ENVIRONMENT = "SWARMESH_API_KEY"
HIVE = "0123456789ab"
KNOWN_WITHIN_S = 0.5
KILLS_MAX = 3
"""What else the machine does at a moment may make one end known late."""
HIVE_SECRET = bytes(range(32))
SpawnElsewhere = Callable[[WorkerSpec], Awaitable[None]]


@pytest.fixture(params=["local", "ssh"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ssh" and (reason := missing()):
        pytest.skip(f"no host over SSH: {reason}")
    return str(request.param)


@pytest.fixture
def queen_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
async def sshd(kind: str, queen_home: Home, tmp_path: Path) -> AsyncIterator[SshdRig | None]:
    if kind == "local":
        yield None
        return
    async with running_sshd(tmp_path / "far", queen_home) as rig:
        rig.install_this()
        yield rig


@pytest.fixture
def home(sshd: SshdRig | None, queen_home: Home) -> Home:
    """Where the host's workers live."""
    if sshd is None:
        return queen_home
    home = sshd.far_home(HIVE)
    home.make()
    return home


@pytest.fixture
async def queen(queen_home: Home) -> AsyncIterator[LittleQueen]:
    queen = LittleQueen(queen_home)
    await queen.start()
    yield queen
    await queen.stop()


@pytest.fixture
async def host(sshd: SshdRig | None, queen_home: Home, queen: LittleQueen) -> AsyncIterator[Host]:
    async with _host(sshd, queen_home) as host:
        yield host
        for file in await host.workers():
            await host.stop(file.rustbee_id, grace_s=0.0)


@pytest.fixture
def spawn_elsewhere(sshd: SshdRig | None, home: Home, queen_home: Home, tmp_path: Path) -> SpawnElsewhere:
    """Spawn as another process would, which then is gone."""

    async def locally(spec: WorkerSpec) -> None:
        code = (
            "import asyncio, sys, msgspec\nfrom pathlib import Path\nfrom swarmesh.config.home import Home\n"
            "from swarmesh.hosts.local import LocalHost\nfrom swarmesh.wire.spec import WorkerSpec\n"
            "spec = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec)\n"
            f"asyncio.run(LocalHost(Home(Path({str(home.root)!r}))).spawn(spec))\n"
        )
        first = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE)
        await first.communicate(msgspec.json.encode(spec))
        assert first.returncode == 0

    async def there(spec: WorkerSpec) -> None:
        assert sshd is not None
        other = Home(tmp_path / "other")
        other.make()
        await learn_host_key(sshd.target(), other)
        shutil.copy(queen_home.queen_file, other.queen_file)
        async with _host(sshd, other) as first:
            await first.spawn(spec)
        sshd.cut()  # The other queen's note of where she is went with her; the host's own session writes hers anew.

    return locally if sshd is None else there


@asynccontextmanager
async def _host(sshd: SshdRig | None, queen_home: Home) -> AsyncIterator[Host]:
    if sshd is None:
        yield LocalHost(queen_home)
        return
    host = SshHost(
        SshShell(sshd.target(), queen_home),
        queen_home,
        hive=HIVE,
        secret=HIVE_SECRET,
        software=no_software,
        queen_address=lambda: msgspec.json.decode(queen_home.queen_file.read_bytes(), type=QueenFile).url,
        watcher=Unconcerned(),
    )
    host.open()
    await host.connected(within_s=30.0)
    yield host
    await host.close()


class Unconcerned:
    def host_up(self, host: SshHost) -> None: ...

    def host_busy(self, host: SshHost) -> bool:
        return False

    def host_down(self, host: SshHost, error: SwarmeshError) -> None: ...


async def test_probe_measures_this_machine(host: Host) -> None:
    facts = await host.probe()
    assert facts.name == host.name
    assert 0 < facts.available_mib <= facts.total_mib <= psutil.virtual_memory().total // 2**20 + 1
    assert facts.cpu_cores >= 1
    assert all(0 <= gpu.free_mib <= gpu.total_mib for gpu in facts.gpus)


async def test_spawned_agents_serve_are_listed_and_stop(host: Host, home: Home, queen: LittleQueen) -> None:
    spawned = await host.spawn(make_spec(home))
    assert [file.pid for file in await host.workers()] == [spawned.pid]
    await queen.wait_status("healthy")
    (file,) = await host.workers()
    assert file.rustbee_id == "rustbee-1"
    assert file.modelcell == "demo"
    assert file.nonce
    assert abs(file.started_at - spawned.started_at) < 0.1
    assert file.boot_id == spawned.boot_id
    assert psutil.pid_exists(file.engine_pid)
    await host.stop("rustbee-1", grace_s=10.0)
    assert await host.workers() == []
    assert identify(spawned.pid) is None
    assert identify(file.engine_pid) is None
    assert not any(map(exists, (file.socket_path, file.engine_socket_path)))


async def test_an_id_in_use_is_not_given_twice(host: Host, home: Home, queen: LittleQueen) -> None:
    spawned = await host.spawn(make_spec(home))
    with pytest.raises(ConflictError, match=f"pid {spawned.pid}"):
        await host.spawn(make_spec(home))


async def test_secrets_are_neither_in_argv_nor_in_the_environment(
    host: Host, home: Home, queen: LittleQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_IN_ENVIRONMENT, "the owner's key")
    spawned = await host.spawn(make_spec(home))
    await queen.wait_status("healthy")
    process = psutil.Process(spawned.pid)
    shown = str(process.cmdline()) + str(process.environ())
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # It has ended, be it that of another test; then it shows nothing any more.
            shown += str(child.cmdline())
    assert KEY not in shown
    assert "the owner's key" not in shown
    assert HIVE_SECRET.hex() not in shown
    assert process.environ()["PATH"]
    work_dir = home.worker_dir("rustbee-1")
    kept = b"".join([path.read_bytes() for path in work_dir.iterdir()])
    assert KEY.encode() not in kept
    assert stat.S_IMODE(work_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(home.sockets_dir / "rustbee-1.sock").st_mode) == 0o600  # noqa: PTH116 - not async


async def test_another_queen_finds_waits_for_and_stops_agents_that_are_not_her_children(
    host: Host, home: Home, queen: LittleQueen, spawn_elsewhere: SpawnElsewhere
) -> None:
    await spawn_elsewhere(make_spec(home))
    await queen.wait_status("healthy")
    assert [file.rustbee_id for file in await host.workers()] == ["rustbee-1"]
    waiting = asyncio.create_task(host.wait_exit("rustbee-1"))
    await asyncio.sleep(0)
    assert not waiting.done()
    await host.stop("rustbee-1", grace_s=10.0)
    async with asyncio.timeout(30):
        await waiting


async def test_wait_exit_returns_when_the_agent_is_killed(host: Host, home: Home, queen: LittleQueen) -> None:
    loop, took_s = asyncio.get_running_loop(), list[float]()
    while not took_s or (took_s[-1] >= KNOWN_WITHIN_S and len(took_s) < KILLS_MAX):
        spawned = await host.spawn(make_spec(home))
        await queen.wait_status("healthy")
        waiting = asyncio.create_task(host.wait_exit("rustbee-1"))
        await asyncio.sleep(0)
        killed_at_s = loop.time()
        os.kill(spawned.pid, signal.SIGKILL)
        await waiting
        took_s.append(loop.time() - killed_at_s)
        assert await host.workers() == []
        queen.forget()
    assert took_s[-1] < KNOWN_WITHIN_S
    await host.wait_exit("rustbee-1")
    await host.wait_exit("rustbee-never-was")


async def test_what_a_dead_agent_left_is_cleared(host: Host, home: Home, queen: LittleQueen) -> None:
    spawned = await host.spawn(make_spec(home))
    await queen.wait_status("healthy")
    (file,) = await host.workers()
    engine = identify(file.engine_pid)
    assert engine is not None
    os.kill(spawned.pid, signal.SIGKILL)
    await host.wait_exit("rustbee-1")
    assert await host.workers() == []
    async with asyncio.timeout(30):
        await engine.wait_exit()
    assert not exists(file.socket_path)
    assert read_agent_file(home.worker_dir("rustbee-1")) is None
    assert (home.worker_dir("rustbee-1") / "agent.log").exists()


async def test_an_agent_that_does_not_end_is_killed_with_its_engine(host: Host, home: Home, queen: LittleQueen) -> None:
    spawned = await host.spawn(make_spec(home))
    await queen.wait_status("healthy")
    (file,) = await host.workers()
    engine = identify(file.engine_pid)
    assert engine is not None
    os.kill(spawned.pid, signal.SIGSTOP)
    await host.stop("rustbee-1", grace_s=0.2)
    assert identify(spawned.pid) is None
    async with asyncio.timeout(30):
        await engine.wait_exit()


async def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(host: Host, home: Home) -> None:
    bystander = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    try:
        work_dir = home.worker_dir("rustbee-old")
        work_dir.mkdir(parents=True)
        lie = AgentFile(
            rustbee_id="rustbee-old",
            modelcell="demo",
            pid=bystander.pid,
            started_at=1_000_000_000.0,
            boot_id="",
            socket_path=str(home.sockets_dir / "old.sock"),
            engine_socket_path=str(home.sockets_dir / "old-engine.sock"),
            engine_pid=bystander.pid,
            engine_started_at=1_000_000_000.0,
        )
        lie.write(work_dir)
        await host.stop("rustbee-old", grace_s=0.0)
        lie.write(work_dir)
        assert await host.workers() == []
        assert bystander.returncode is None
    finally:
        await bystander.communicate(b"\n")


async def test_the_last_words_of_a_failed_start_can_be_read(host: Host, home: Home) -> None:
    work_dir = home.worker_dir("rustbee-1")
    work_dir.mkdir(parents=True)
    (work_dir / "engine.log").write_text("\n".join(f"line {n}" for n in range(100)))
    assert await host.tail("rustbee-1", 3) == "line 97\nline 98\nline 99"
    assert await host.tail("rustbee-2") == ""


@pytest.mark.parametrize("worker_id", ["../../etc", "a/b", "", ".hidden", "x" * 65])
async def test_an_id_that_is_a_path_is_refused(host: Host, worker_id: str) -> None:
    with pytest.raises(NotFoundError):
        await host.stop(worker_id, grace_s=0.0)


async def test_directories_of_the_long_dead_are_not_kept_for_ever(host: Host, home: Home) -> None:
    for number in range(DEAD_DIRS_KEPT + 5):
        work_dir = home.worker_dir(f"rustbee-{number}")
        work_dir.mkdir(parents=True)
        os.utime(work_dir, (number, number))
    await host.workers()
    left = sorted(int(path.name.removeprefix("rustbee-")) for path in home.workers_dir.iterdir())
    assert left == list(range(5, DEAD_DIRS_KEPT + 5))


def exists(path: str) -> bool:
    return Path(path).exists()
