"""Ways to a host behind a real sshd: sockets, ports, files and connections, and that none is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from ssh_host_bed import HIVE, Seen, make_host, ssh_children
from sshd_rig import SshdRig, missing, no_software
from swarmesh.config.home import Home
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.session_client import SessionClient
from swarmesh.hosts.ssh_errors import HostLostError, HostUnreachableError
from swarmesh.hosts.ssh_forwards import SshForwards
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.hosts.ssh_shell import CONNECTIONS_MAX
from swarmesh.wire.hosts import HostStatus
from swarmesh.wire.session import Hello, Kept, Opening, Purpose, Wanted

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no host over SSH: {missing()}")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    # A path that ssh would read otherwise than it is written, were it not told.
    home = Home(tmp_path / "a home, 100%d")
    home.make()
    return home


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


async def test_no_more_than_four_connections_at_once(
    host: SshHost, sshd: SshdRig, home: Home, until: Callable[..., Awaitable[object]]
) -> None:
    shell = host._shell
    wait = {"action": "run", "digest": (await no_software()).digest}
    starts = [await shell.start(wait) for _ in range(CONNECTIONS_MAX - 1)]
    more = asyncio.create_task(shell.start(wait))
    await asyncio.sleep(0.2)
    assert not more.done()
    # Beside them there may be one that ends at once, as those are that only set something up.
    await until(lambda: len(ssh_children(psutil.Process())) == CONNECTIONS_MAX)
    starts[0].kill()
    process = await more
    sshd.cut()
    await asyncio.gather(*(each.close() for each in (*starts, process)))


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


def files_of(directory: Path) -> list[str]:
    return [str(path) for path in directory.iterdir()]


def read(path: str) -> bytes:
    return Path(path).read_bytes()
