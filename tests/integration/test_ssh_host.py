"""A host behind a real sshd: its connection is lost, stalled, refused and found again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import structlog

from rustbee_rig import LittleQueen, make_spec
from sshd_rig import DIGEST, SshdRig, missing, no_software, running_sshd
from swarmesh.config.home import Home, QueenFile, read_queen_file
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts import backoff as backoff_module
from swarmesh.hosts import ssh_host as ssh_host_module
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.session_client import PING_WAIT_S, SessionClient
from swarmesh.hosts.software import Software
from swarmesh.hosts.ssh_errors import HostLostError, HostUnreachableError
from swarmesh.hosts.ssh_forwards import SshForwards
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.hosts.ssh_link import SshLink
from swarmesh.hosts.ssh_shell import CONNECTIONS_MAX, SshShell
from swarmesh.wire.hosts import HostStatus
from swarmesh.wire.session import Hello, Kept, Opening, Purpose, Wanted

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no host over SSH: {missing()}")

HIVE = "0123456789ab"
OLDER = "fedcba9876543210"
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


@pytest.fixture
def home(tmp_path: Path) -> Home:
    # A path that ssh would read otherwise than it is written, were it not told.
    home = Home(tmp_path / "a home, 100%d")
    home.make()
    return home


@pytest.fixture
async def sshd(home: Home, tmp_path: Path) -> AsyncIterator[SshdRig]:
    async with running_sshd(tmp_path / "far", home) as rig:
        rig.install_this()
        yield rig


@pytest.fixture
def seen() -> Seen:
    return Seen()


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


@pytest.fixture
async def host(sshd: SshdRig, home: Home, seen: Seen) -> AsyncIterator[SshHost]:
    host = make_host(sshd, home, seen)
    host.open()
    await host.connected(within_s=30.0)
    yield host
    await host.close()


async def answered(location: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(location.removeprefix("unix:"))
    answer = await reader.read()
    writer.close()
    return answer


async def serve(path: Path, answer: bytes) -> asyncio.Server:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    return await asyncio.start_unix_server(take, str(path))


async def test_sockets_there_are_reached_here_again_after_the_connection_was_lost(
    host: SshHost, sshd: SshdRig, home: Home, seen: Seen
) -> None:
    far = sshd.directory / "far:50%h.sock"
    async with await serve(far, b"from there"):
        location = await host.reach("rustbee-1", f"unix:{far}")
        assert Path(location.removeprefix("unix:")).parent == home.sockets_dir
        assert await answered(location) == b"from there"
        assert await host.reach("rustbee-1", f"unix:{far}") == location
        sshd.cut()
        await seen.wait("up", "host_lost", "up")
        assert host.status is HostStatus.CONNECTED
        assert host.error is None
        assert await answered(location) == b"from there"
    other = sshd.directory / "other.sock"
    async with await serve(other, b"from elsewhere"):
        assert await host.reach("rustbee-1", f"unix:{other}") == location
        assert await answered(location) == b"from elsewhere"
    await host.let_go("rustbee-1")
    await host.let_go("rustbee-1")
    assert location.removeprefix("unix:") not in files_of(home.sockets_dir)


async def test_a_port_there_is_reached_too(host: SshHost, sshd: SshdRig) -> None:
    location = await host.reach("rustbee-1", f"http://127.0.0.1:{sshd.port}")
    reader, writer = await asyncio.open_unix_connection(location.removeprefix("unix:"))
    assert (await reader.readline()).startswith(b"SSH-2.0-")
    writer.close()


async def test_while_nobody_is_there_every_call_fails_at_once_and_tries_go_on(
    host: SshHost, sshd: SshdRig, seen: Seen
) -> None:
    await sshd.stop()
    await seen.wait("up", "host_lost")
    with pytest.raises(HostUnreachableError):
        await host.probe()
    with pytest.raises(HostUnreachableError):
        await host.reach("rustbee-1", "unix:/nowhere")
    with pytest.raises(HostUnreachableError):
        await host.open_transfer(Opening(purpose=Purpose.SEND, hive=HIVE))
    with pytest.raises(HostUnreachableError, match="refused"):
        await host.connected(within_s=1.0)
    assert host.status is HostStatus.UNREACHABLE
    assert host.since_s < 5.0
    await sshd.start()
    await seen.wait("up", "host_lost", "up")
    assert (await host.probe()).name == "far"


async def test_a_connection_that_carries_nothing_any_more_is_given_up(host: SshHost, sshd: SshdRig, seen: Seen) -> None:
    loop = asyncio.get_running_loop()
    calling = asyncio.create_task(host.wait_exit("nobody"))
    await calling
    stopped_at_s = loop.time()
    sshd.signal(signal.SIGSTOP)
    waiting = asyncio.create_task(host.call("probe", {}, object))
    with pytest.raises(HostLostError):
        await waiting
    assert loop.time() - stopped_at_s < PING_WAIT_S + 3.0
    await seen.wait("up", "host_lost", "up")


async def test_waiting_for_an_end_survives_a_lost_connection(
    sshd: SshdRig, home: Home, seen: Seen, tmp_path: Path
) -> None:
    queen_home = Home(tmp_path / "queen")
    queen_home.make()
    queen = LittleQueen(queen_home)
    await queen.start()
    note = read_queen_file(queen_home.queen_file)
    assert note is not None
    host = make_host(sshd, home, seen, lambda: note.url)
    host.open()
    try:
        await host.connected(within_s=30.0)
        far = sshd.far_home(HIVE)
        spawned = await host.spawn(make_spec(far))
        await queen.wait_status("healthy")
        found = msgspec.json.decode(far.queen_file.read_bytes(), type=QueenFile)
        assert found.url.startswith("unix:/"), "she was heard through the reverse socket"
        waiting = asyncio.create_task(host.wait_exit("rustbee-1"))
        sshd.cut()
        await seen.wait("up", "host_lost", "up")
        assert not waiting.done()
        assert [file.pid for file in await host.workers()] == [spawned.pid]
        await host.stop("rustbee-1", grace_s=10.0)
        async with asyncio.timeout(5):
            await waiting
    finally:
        await host.close()
        await queen.stop()


async def test_nothing_is_left_here_after_closing(host: SshHost, sshd: SshdRig, home: Home) -> None:
    far = sshd.directory / "far.sock"
    async with await serve(far, b"x"):
        location = await host.reach("rustbee-1", f"unix:{far}")
        _, writer = await asyncio.open_unix_connection(location.removeprefix("unix:"))
        children = ssh_children(psutil.Process())
        assert children
        await host.close()
        writer.close()
    assert not ssh_children(psutil.Process())
    assert files_of(home.sockets_dir) == []
    with pytest.raises(HostUnreachableError, match="closed"):
        await host.wait_exit("rustbee-1")


async def test_an_ssh_ends_with_a_queen_that_is_killed(sshd: SshdRig, home: Home, tmp_path: Path) -> None:
    far = sshd.directory / "far.sock"
    script = (
        "import asyncio, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from sshd_rig import no_software\n"
        "from swarmesh.config.home import Home\n"
        "from swarmesh.hosts.ssh_host import SshHost\n"
        "from swarmesh.hosts.ssh_shell import SshShell\n"
        "from swarmesh.hosts.ssh_target import SshTarget\n"
        "import msgspec\n"
        "class Unconcerned:\n"
        "    def host_up(self, host): pass\n"
        "    def host_down(self, host, error): pass\n"
        "    def host_busy(self, host): return False\n"
        "async def main():\n"
        "    target = msgspec.json.decode(sys.argv[2], type=SshTarget)\n"
        "    home = Home(Path(sys.argv[3]))\n"
        f"    host = SshHost(SshShell(target, home), home, hive={HIVE!r}, secret=bytes(32), software=no_software,\n"
        "                   queen_address=lambda: 'http://127.0.0.1:9', watcher=Unconcerned())\n"
        "    host.open()\n"
        "    await host.connected(30)\n"
        "    location = await host.reach('rustbee-1', 'unix:' + sys.argv[4])\n"
        "    reader, writer = await asyncio.open_unix_connection(location.removeprefix('unix:'))\n"
        "    writer.write(b'x'); await reader.read(1)\n"
        "    print('here', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1))
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(take, str(far)):
        queen = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, str(Path(__file__).parents[1])),
            *(msgspec.json.encode(sshd.target()).decode(), str(home.root), str(far)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert queen.stdout is not None
        assert await queen.stdout.readline() == b"here\n"
        sshs = ssh_children(psutil.Process(queen.pid))
        assert sshs
        queen.kill()
        await queen.wait()
        _, left = await asyncio.to_thread(psutil.wait_procs, sshs, 10.0)
        assert not left


async def test_no_more_than_four_connections_at_once(host: SshHost, sshd: SshdRig, home: Home) -> None:
    shell = host._shell
    wait = {"action": "run", "digest": (await no_software()).digest}
    starts = [await shell.start(wait) for _ in range(CONNECTIONS_MAX - 1)]
    more = asyncio.create_task(shell.start(wait))
    await asyncio.sleep(0.2)
    assert not more.done()
    assert len(ssh_children(psutil.Process())) == CONNECTIONS_MAX
    starts[0].kill()
    process = await more
    sshd.cut()
    await asyncio.gather(*(each.close() for each in (*starts, process)))


async def test_what_is_missing_there_is_installed(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef" / ".ready").unlink()
    asked: list[Any] = []

    async def install(*args: Any, **named: Any) -> None:
        asked.append((args[1].digest, named))
        (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef" / "bin" / "python").unlink()
        (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef" / "bin").rmdir()
        (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef").rmdir()
        sshd.install_this()

    monkeypatch.setattr(ssh_host_module, "install", install)
    host = make_host(sshd, home, seen)
    host.open()
    await host.connected(within_s=30.0)
    assert asked == [("0123456789abcdef", {"hive": HIVE})]
    await host.close()


async def test_an_older_version_serves_until_this_one_is_installed_and_nobody_is_busy(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = sshd.login_home / ".swarmesh" / "envs"
    (envs / DIGEST).rename(envs / OLDER)
    (envs / OLDER / ".ready").write_text(str((envs / OLDER / "bin" / "python").resolve()))
    monkeypatch.setattr(ssh_host_module, "UPGRADE_LOOK_S", 0.05)
    asked = asyncio.Event()

    async def install(*_args: Any, **_named: Any) -> None:
        sshd.install_this()
        asked.set()

    monkeypatch.setattr(ssh_host_module, "install", install)
    seen.busy = True
    host = make_host(sshd, home, seen)
    host.open()
    await host.connected(within_s=30.0)
    assert await host.workers() == [], "the older version answers"
    await asyncio.wait_for(asked.wait(), 10)
    await asyncio.sleep(0.2)
    assert seen.words == ["up"], "somebody's stream would break"
    seen.busy = False
    await seen.wait("up", "host_lost", "up")
    await asyncio.sleep(0.2)
    assert seen.words == ["up", "host_lost", "up"], "and then it is what it should be"
    await host.close()


async def test_a_file_goes_over_on_a_connection_of_its_own(host: SshHost, sshd: SshdRig) -> None:
    data = os.urandom(3_000_000)
    opening = Opening(
        purpose=Purpose.RECEIVE,
        hive="",
        name="some.gguf",
        directory=hashlib.sha256(data).hexdigest()[:16],
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    transfer = await host.open_transfer(opening)
    assert (await transfer.read(Wanted)).offset == 0
    await transfer.send(data)
    kept = await transfer.read(Kept)
    assert await transfer.close() == 0
    assert Path(kept.path).is_relative_to(sshd.far_home(HIVE).models_dir)
    assert read(kept.path) == data


async def test_a_host_that_forwards_nothing_says_so(home: Home, seen: Seen, tmp_path: Path) -> None:
    async with running_sshd(tmp_path / "far", home, AllowStreamLocalForwarding="no") as rig:
        rig.install_this()
        host = make_host(rig, home, seen)
        host.open()
        with pytest.raises(HostUnreachableError) as caught:
            await host.connected(within_s=2.0)
        assert caught.value.code == "host_forwarding_refused"
        assert "sshd_config" in caught.value.hint
        assert seen.words == ["host_forwarding_refused"]
        await host.close()
    assert not ssh_children(psutil.Process())


async def test_a_host_that_does_not_know_us_is_not_asked_again_and_again(sshd: SshdRig, home: Home, seen: Seen) -> None:
    (sshd.directory / "authorized").write_text("")
    host = make_host(sshd, home, seen)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    host.open()
    with pytest.raises(HostUnreachableError) as caught:
        await host.connected(within_s=30.0)
    assert caught.value.code == "host_denied"
    assert loop.time() - began_s < 10.0
    await host.close()


async def test_nothing_that_goes_wrong_ends_the_tries(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: list[Exception] = [ValueError("embedded null byte"), IndexError("no"), TypeError("no")]
    open_link = SshLink.open

    async def opened(*args: Any, **named: Any) -> SshLink:
        if wrong:
            raise wrong.pop()
        return await open_link(*args, **named)

    monkeypatch.setattr(SshLink, "open", opened)
    monkeypatch.setattr(backoff_module, "SETUP_MAX_S", 0.1)
    host = make_host(sshd, home, seen)
    host.open()
    await seen.wait("internal_error")
    with pytest.raises(HostUnreachableError, match="TypeError"):
        await host.probe()
    assert host.status is HostStatus.UNREACHABLE
    await seen.wait("internal_error", "up")
    assert (await host.probe()).name == "far"
    await host.close()


async def test_a_connection_whose_reading_fails_is_down_and_comes_back(host: SshHost, seen: Seen) -> None:
    def misread(_reply: object) -> None:
        raise IndexError("no")

    link = host._link
    assert link is not None
    link.session._take = misread  # type: ignore[method-assign]  # a defect in it
    await seen.wait("up", "internal_error", "up", timeout_s=20.0)
    assert host._link is not link
    assert host.status is HostStatus.CONNECTED


async def test_a_watcher_that_raises_ends_nothing(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, raised = seen.host_up, []

    def host_up(host: SshHost) -> None:
        tell(host)
        if not raised:
            raised.append(True)
            raise RuntimeError("no")

    monkeypatch.setattr(seen, "host_up", host_up)
    host = make_host(sshd, home, seen)
    host.open()
    await seen.wait("up", "internal_error", "up")
    await host.close()
    assert not ssh_children(psutil.Process())


async def test_closing_raises_nothing(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    async def close(_link: SshLink) -> None:
        await really_close(link)
        raise OSError("the socket's file cannot be removed")

    link, really_close = host._link, SshLink.close
    assert link is not None
    monkeypatch.setattr(SshLink, "close", close)
    await host.close()
    assert host.status is HostStatus.UNREACHABLE


async def test_a_way_that_nobody_waits_for_any_more_leaves_no_socket(
    host: SshHost, sshd: SshdRig, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, made, goes_on = SshForwards.add, asyncio.Event(), asyncio.Event()

    async def added(forwards: SshForwards, local: Path, place: str) -> None:
        await add(forwards, local, place)
        made.set()
        await goes_on.wait()

    monkeypatch.setattr(SshForwards, "add", added)
    before = files_of(home.sockets_dir)
    reaching = asyncio.create_task(host.reach("rustbee-1", f"http://127.0.0.1:{sshd.port}"))
    await made.wait()
    assert len(files_of(home.sockets_dir)) == len(before) + 1
    reaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reaching
    assert files_of(home.sockets_dir) == before
    made.clear()
    reaching = asyncio.create_task(host.reach("rustbee-1", f"http://127.0.0.1:{sshd.port}"))
    await made.wait()
    link, host._link = host._link, None
    goes_on.set()
    with pytest.raises(HostUnreachableError):
        await reaching
    assert files_of(home.sockets_dir) == before
    host._link = link
    await answers(await host.reach("rustbee-1", f"http://127.0.0.1:{sshd.port}"))


async def answers(location: str) -> None:
    reader, writer = await asyncio.open_unix_connection(location.removeprefix("unix:"))
    assert (await reader.readline()).startswith(b"SSH-2.0-")
    writer.close()


@pytest.mark.parametrize("location", ["unix:/a\0b", "unix:/a\nb", "unix:a", "http://a\x1b[2J:1", "https://a:1", ""])
async def test_a_rustbee_at_no_address_is_not_reached(location: str, host: SshHost, home: Home) -> None:
    before = files_of(home.sockets_dir)
    with pytest.raises(HostUnreachableError, match="as a rustbee's address") as caught:
        await host.reach("rustbee-1", location)
    assert caught.value.code == "host_ssh_failed"
    assert "\x1b" not in caught.value.message
    assert files_of(home.sockets_dir) == before
    assert host.status is HostStatus.CONNECTED


async def test_a_session_that_does_not_open_leaves_no_socket(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_at: list[Path] = []

    async def open_session(process: RemoteProcess, opening: Opening) -> None:
        await process.send(msgspec.json.encode(opening) + b"\n")
        await process.read(Hello)
        opened_at.extend(home.sockets_dir.iterdir())
        raise HostLostError("it did not begin")

    monkeypatch.setattr(SessionClient, "open", open_session)
    host = make_host(sshd, home, seen)
    with pytest.raises(HostLostError):
        await host._open_link(await no_software())
    assert [path.suffix for path in opened_at] == [".ctl"]
    assert files_of(home.sockets_dir) == []


@pytest.mark.parametrize("wrong", [OSError("the disk is gone"), SwarmeshError("no package")])
async def test_an_upgrade_that_cannot_begin_is_logged_and_the_connection_stays(
    wrong: Exception, sshd: SshdRig, home: Home, seen: Seen
) -> None:
    connecting, failed = [True], asyncio.Event()

    async def software() -> Software:
        if connecting:
            connecting.clear()
            return await no_software()
        failed.set()
        raise wrong

    host = make_host(sshd, home, seen)
    host._software = software
    with structlog.testing.capture_logs() as logs:
        host.open()
        await host.connected(within_s=30.0)
        await failed.wait()
        await host.probe()
    assert [(line["event"], line["error"]) for line in logs] == [("not_upgraded", str(wrong))]
    assert seen.words == ["up"]
    await host.close()


async def test_an_upgrade_is_over_when_the_host_is_closed(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = sshd.login_home / ".swarmesh" / "envs"
    (envs / DIGEST).rename(envs / OLDER)
    (envs / OLDER / ".ready").write_text(str((envs / OLDER / "bin" / "python").resolve()))
    words: list[str] = []
    began = asyncio.Event()

    async def install(*_args: Any, **_named: Any) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            words.append("ended")

    monkeypatch.setattr(ssh_host_module, "install", install)
    host = make_host(sshd, home, seen)
    host.open()
    await began.wait()
    await host.close()
    assert words == ["ended"]


def ssh_children(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # It ended a moment ago, as short runs of ssh do.
            if child.name() == "ssh" and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def files_of(directory: Path) -> list[str]:
    return [str(path) for path in directory.iterdir()]


def read(path: str) -> bytes:
    return Path(path).read_bytes()
