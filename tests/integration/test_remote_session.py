"""The queen's session on another host: a real process over pipes, with real agents below it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remote_rig import HIVE, SECRET, SocketQueen, connect, hive_home_of, opening, session
from remote_session_bed import call, hello_of
from rustbee_rig import make_spec
from swarmesh import __version__
from swarmesh.config.home import Home, QueenFile, read_queen_file, write_private
from swarmesh.core.errors import ConflictError, InvalidValueError, NotFoundError, SwarmeshError
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.host import HostFacts, SpawnedAgent
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import ProcessIdentity, boot_id, identify
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.session import PROTOCOL, Reply

Until = Callable[..., Awaitable[Any]]

FAST = "1.5"
"""Seconds of silence that end a session, where a test waits for it."""


@pytest.fixture
def user_home(tmp_path: Path) -> Path:
    home = tmp_path / "u"
    home.mkdir()
    return home


@pytest.fixture
async def home(user_home: Path) -> AsyncIterator[Home]:
    home = hive_home_of(user_home)
    yield home
    for file in await LocalHost(home).workers():
        await LocalHost(home).stop(file.rustbee_id, grace_s=0.0)


def exists(path: Path) -> bool:
    return path.exists()


def connections_of(pid: int) -> set[str]:
    """The pipes and sockets that a process holds."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # It lives meanwhile.
            held.add(str(entry.readlink()))
    return {name for name in held if name.startswith(("pipe:", "socket:"))}


async def test_hello_says_who_is_there_and_the_home_is_private(user_home: Path, home: Home) -> None:
    async with session(user_home) as client:
        hello = client.hello
        assert (hello.protocol, hello.version, hello.boot_id) == (PROTOCOL, __version__, boot_id())
        assert identify(hello.pid) is not None
        path = Path(hello.queen_socket)
        assert path.parent == home.sockets_dir
        assert not exists(path)
        assert len(hello.queen_socket.encode()) <= 100
        facts = await client.call("probe", {}, HostFacts)
        assert facts.name == "mac"
        assert facts.layout.root == str(home.root)
        assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
        assert home.worker_secret_file.read_bytes().hex() == SECRET
        assert stat.S_IMODE(home.worker_secret_file.stat().st_mode) == 0o600
    async with session(user_home, secret="ab" * 32):
        assert home.worker_secret_file.read_bytes().hex() == "ab" * 32
    async with session(user_home, secret=""):
        assert home.worker_secret_file.read_bytes().hex() == "ab" * 32


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (b"nonsense\n", "no opening"),
        (b"\xff\xfe\n", "no opening"),
        (b'{"purpose": "dance", "hive": "0123456789ab"}\n', "no opening"),
        (b"x" * 70_000, "longer than"),
        (opening(hive="../../../etc"), "no id of a hive"),
        (opening(hive="0123456789AB"), "no id of a hive"),
        (opening(secret="5e" * 31), "not 64 hexadecimal digits"),
    ],
)
async def test_an_opening_that_is_none_is_refused_and_leaves_nothing(user_home: Path, first: Any, says: str) -> None:
    remote = await connect(user_home, first)
    with pytest.raises(RemoteError, match=says) as caught:
        await remote.line()
    assert caught.value.code == "invalid_value"
    assert "5e5e" not in caught.value.message
    assert await remote.close() == 1
    assert not (hive_home_of(user_home).root / "worker.secret").exists()


async def test_an_agent_is_spawned_finds_the_queen_and_outlives_every_session(
    user_home: Path, home: Home, until: Until
) -> None:
    first = await connect(user_home, opening())
    hello = await hello_of(first)
    queen = SocketQueen(home, hello.queen_socket, next_waggle=0.2)
    await queen.start()
    await first.send(call(1, "linked") + call(2, "spawn", spec=msgspec.to_builtins(make_spec(home))))
    replies = {reply.id: reply for reply in [await first.read(Reply), await first.read(Reply)]}
    assert replies[1].error is None
    spawned = msgspec.json.decode(replies[2].result, type=SpawnedAgent)
    await queen.wait_status("healthy")
    assert os.getsid(spawned.pid) != os.getsid(first.pid)

    os.killpg(first.pid, signal.SIGKILL)
    await first.close()
    await queen.stop()
    agent = ProcessIdentity(spawned.pid, spawned.started_at, spawned.boot_id)
    assert agent.alive

    async with session(user_home) as client:
        assert client.hello.queen_socket != hello.queen_socket
        successor = SocketQueen(home, client.hello.queen_socket)
        await successor.start()
        await client.call("linked", {}, object)
        await successor.wait_status("healthy")  # It read the new note by itself.
        (file,) = await client.call("workers", {}, list[AgentFile])
        assert (file.pid, file.rustbee_id) == (spawned.pid, "rustbee-1")
        with pytest.raises(ConflictError, match=f"pid {spawned.pid}"):
            await client.call("spawn", {"spec": make_spec(home)}, SpawnedAgent)
        waiting = asyncio.create_task(client.call("wait_exit", {"worker_id": "rustbee-1"}, object))
        await client.call("ping", {}, object)
        assert not waiting.done()
        assert "registered" not in await client.call("tail", {"worker_id": "rustbee-1", "lines_max": 5}, str)
        await client.call("stop", {"worker_id": "rustbee-1", "grace_s": 10.0}, object)
        await asyncio.wait_for(waiting, 15)
        assert await client.call("workers", {}, list[AgentFile]) == []
        await client.call("wait_exit", {"worker_id": "rustbee-never-was"}, object)
        await successor.stop()
    assert not agent.alive


async def test_nothing_of_the_session_is_held_by_an_agent(user_home: Path, home: Home) -> None:
    async with session(user_home) as client:
        spawned = await client.call("spawn", {"spec": make_spec(home)}, SpawnedAgent)
        assert len(connections_of(client.hello.pid)) >= 3
        assert not connections_of(client.hello.pid) & connections_of(spawned.pid)
    assert identify(spawned.pid) is not None


async def test_the_note_about_the_queen_comes_and_goes_with_the_session(user_home: Path, home: Home) -> None:
    async with session(user_home) as client:
        assert not home.queen_file.exists()
        await client.call("linked", {}, object)
        note = read_queen_file(home.queen_file)
        assert note is not None
        assert (note.url, note.pid, note.version) == (
            f"unix:{client.hello.queen_socket}",
            client.hello.pid,
            __version__,
        )
        assert ProcessIdentity(note.pid, note.started_at, "").alive
        forwarded = socket.socket(socket.AF_UNIX)
        forwarded.bind(client.hello.queen_socket)
    forwarded.close()
    assert not home.queen_file.exists()
    assert not exists(Path(client.hello.queen_socket))


async def test_a_note_that_a_later_session_wrote_stays(user_home: Path, home: Home) -> None:
    async with session(user_home) as earlier:
        await earlier.call("linked", {}, object)
        async with session(user_home) as later:
            await later.call("linked", {}, object)
            note = read_queen_file(home.queen_file)
            process = identify(earlier.hello.pid)
            assert process is not None
            process.send(signal.SIGTERM)
            await process.wait_exit()
            with pytest.raises(SwarmeshError):
                await earlier.call("ping", {}, object)
            assert note is not None
            assert read_queen_file(home.queen_file) == note
            assert note.pid == later.hello.pid


async def test_sockets_that_nobody_listens_to_any_more_are_cleared_away(user_home: Path, home: Home) -> None:
    home.make()
    dead, alive, other = (home.sockets_dir / name for name in ("queen-1.sock", "queen-2.sock", "rustbee-1.sock"))
    listener, killed, bee = (socket.socket(socket.AF_UNIX) for _ in range(3))
    listener.bind(str(alive))
    listener.listen()
    killed.bind(str(dead))
    bee.bind(str(other))
    killed.close()
    bee.close()
    async with session(user_home):
        assert not dead.exists()
        assert alive.exists()
        assert other.exists()
    listener.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_it_neatly(user_home: Path, home: Home, signum: signal.Signals) -> None:
    remote = await connect(user_home, opening())
    await hello_of(remote)
    await remote.send(call(1, "linked"))
    await remote.read(Reply)
    os.kill(remote.pid, signum)
    assert await remote.bytes(1) == b""
    assert await remote.close() == 0
    assert not home.queen_file.exists()


async def test_a_session_that_hears_nothing_ends_and_one_that_hears_pings_does_not(user_home: Path, home: Home) -> None:
    loop = asyncio.get_running_loop()
    remote = await connect(user_home, opening(), limits="3.0")
    began_s, number = loop.time(), 0
    await hello_of(remote)
    while loop.time() - began_s < 3.5:
        number += 1
        spoken_at_s = loop.time()
        await remote.send(call(number, "linked" if number == 1 else "ping"))
        assert (await remote.read(Reply)).id == number
        await asyncio.sleep(0.1)
    assert home.queen_file.exists()
    assert await remote.bytes(1) == b""
    assert loop.time() - spoken_at_s > 2.9
    assert not home.queen_file.exists()
    assert await remote.close() == 0


async def test_a_process_that_was_stopped_for_a_while_reads_before_it_judges(user_home: Path, home: Home) -> None:
    remote = await connect(user_home, opening(), limits=FAST)
    await hello_of(remote)
    os.kill(remote.pid, signal.SIGSTOP)
    await asyncio.sleep(2.0)
    await remote.send(call(1, "ping"))
    os.kill(remote.pid, signal.SIGCONT)
    assert (await remote.read(Reply)).id == 1
    await remote.close()


@pytest.mark.parametrize(("name", "ended"), [("sshd", True), ("sshd-session", True), ("login", False)])
async def test_a_silent_session_ends_its_own_ssh_connection_and_nobody_elses(
    user_home: Path, tmp_path: Path, name: str, *, ended: bool
) -> None:
    # A shell that is named like it stands for sshd; it would say something after the session's end.
    parent = tmp_path / name
    parent.symlink_to("/bin/sh")
    program = tmp_path / "program.py"
    program.write_text(f"from swarmesh.remote.connection import main\nmain({FAST})\n")
    process = await asyncio.create_subprocess_exec(
        parent,
        "-c",
        '"$0" "$1"; echo still here',
        sys.executable,
        program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(user_home), "TMPDIR": tempfile.gettempdir()},
    )
    said, _ = await asyncio.gather(_read_all(process), _open_and_hold(process))
    assert said.startswith(b'{"protocol"')
    assert said.endswith(b"still here\n") is not ended
    assert await process.wait() == (-signal.SIGTERM if ended else 0)


async def _read_all(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.read()


async def _open_and_hold(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(opening()) + b"\n")
    await process.stdin.drain()


async def test_hives_do_not_see_one_another(user_home: Path, home: Home) -> None:
    async with session(user_home) as client, session(user_home, hive="f" * 12) as other:
        await client.call("spawn", {"spec": make_spec(home)}, SpawnedAgent)
        assert len(await client.call("workers", {}, list[AgentFile])) == 1
        assert await other.call("workers", {}, list[AgentFile]) == []
        with pytest.raises((NotFoundError, InvalidValueError)):
            await other.call("tail", {"worker_id": f"../../{HIVE}/rustbees/rustbee-1"}, str)


async def test_a_note_that_is_not_of_a_session_is_left_alone(user_home: Path, home: Home) -> None:
    async with session(user_home):
        write_private(home.queen_file, msgspec.json.encode(QueenFile("http://127.0.0.1:1", 1, 0.0, "test")))
    assert home.queen_file.exists()
