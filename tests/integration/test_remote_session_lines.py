"""What goes over a session with another host: calls, too many of them, and lines that are none."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remote_rig import connect, hive_home_of, opening, session
from remote_session_bed import call, hello_of
from rustbee_rig import DEMO_GGUF, make_spec
from swarmesh.config.home import Home
from swarmesh.core.errors import ModelFileError, SwarmeshError
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.host import SpawnedAgent
from swarmesh.hosts.local import LocalHost
from swarmesh.models.gguf import GgufHeader
from swarmesh.models.shelf import ModelFiles
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import CheckView, FoundView
from swarmesh.wire.session import LINE_BYTES_MAX, PROTOCOL, Hello, Reply


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


async def test_two_hundred_calls_at_once_are_all_answered(user_home: Path, home: Home) -> None:
    async with session(user_home) as client:
        calls: list[Any] = []
        for number in range(50):
            calls.append(client.call("tail", {"worker_id": f"rustbee-{number}"}, str))
            calls.append(client.call("workers", {}, list[AgentFile]))
            calls.append(client.call("header", {"path": str(DEMO_GGUF)}, GgufHeader))
            calls.append(client.call("ping", {}, object))
        answers = await asyncio.wait_for(asyncio.gather(*calls), 30)
    assert len(answers) == 200
    assert set(answers[::4]) == {""}
    assert {answer.architecture for answer in answers[2::4]} == {"llama"}


async def test_calls_beyond_the_limit_are_refused_and_pings_go_on_below_it(user_home: Path) -> None:
    limit = "import swarmesh.remote.session as s\ns.CALLS_MAX = 2\n"
    async with session(user_home, before=limit) as client:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(_code_of(client.call("checks", {}, object))) for _ in range(5)]
        codes = [task.result() for task in calls]
    assert codes.count("too_many_calls") == 3
    assert codes.count("") == 2


async def _code_of(calling: Any) -> str:
    try:
        await calling
    except SwarmeshError as error:
        return error.code
    return ""


async def test_lines_that_are_no_calls_are_answered_and_end_nothing(user_home: Path) -> None:
    remote = await connect(user_home, opening())
    await hello_of(remote)
    lines = [
        (b"nonsense\n", 0, "invalid_value"),
        (b"\n", 0, "invalid_value"),
        (b"\xff\x00\n", 0, "invalid_value"),
        (b"[1, 2]\n", 0, "invalid_value"),
        (b'{"id": 7}\n', 7, "invalid_value"),
        (b'{"id": 8, "call": "dance"}\n', 8, "unknown_call"),
        (b'{"id": 9, "call": "stop", "args": {"worker_id": 1}}\n', 9, "invalid_value"),
        (b'{"id": 10, "call": "spawn", "args": [1]}\n', 10, "invalid_value"),
        (b'{"id": 11, "call": "stop", "args": {"worker_id": "../../etc", "grace_s": 0}}\n', 11, "not_found"),
        (b'{"id": 12, "call": "header", "args": {"path": "/nowhere"}}\n', 12, "model_file_unusable"),
    ]
    for line, number, code in lines:
        await remote.send(line)
        reply = await remote.read(Reply)
        assert reply.error is not None
        assert (reply.id, reply.error.code, 400 <= reply.status < 600) == (number, code, True), line
    await remote.send(call(13, "ping"))
    last = await remote.read(Reply)
    assert (last.id, bytes(last.result), last.error) == (13, b"null", None)
    assert await remote.close() == 0


async def test_a_line_without_an_end_is_answered_and_ends_nothing(user_home: Path) -> None:
    remote = await connect(user_home, opening())
    await hello_of(remote)
    block = b"x" * (1 << 20)
    for _ in range(2 * LINE_BYTES_MAX // len(block) + 1):
        await remote.send(block)
    await remote.send(b"\n" + call(1, "ping"))
    numbers = []
    while 1 not in numbers:
        numbers.append((await remote.read(Reply)).id)
    assert set(numbers[:-1]) == {0}
    await remote.close()


async def test_what_nobody_foresaw_is_told_and_ends_nothing(user_home: Path, home: Home) -> None:
    (home.worker_dir("rustbee-1") / "agent.out").mkdir(parents=True)
    async with session(user_home) as client:
        with pytest.raises(RemoteError, match=r"spawn on mac failed: IsADirectoryError") as caught:
            await client.call("spawn", {"spec": make_spec(home)}, SpawnedAgent)
        assert caught.value.code == "internal_error"
        await client.call("ping", {}, object)


async def test_a_print_of_a_library_does_not_get_between_the_lines(user_home: Path) -> None:
    chatty = (
        "import os, subprocess\nfrom swarmesh.hosts.local import LocalHost\nasync def chatty(self, worker_id, n):\n"
        "    print('hello'); os.write(1, b'hello'); subprocess.run(['/bin/echo', 'hello'])\n"
        "    return subprocess.run(['/bin/cat'], stdout=-1).stdout.decode() + 'said'\nLocalHost.tail = chatty\n"
    )
    async with session(user_home, before=chatty) as client:
        assert await client.call("tail", {"worker_id": "rustbee-1"}, str) == "said"


async def test_one_socket_may_be_both_input_and_output(user_home: Path) -> None:
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "swarmesh.remote",
        stdin=theirs,
        stdout=theirs,
        env={"PATH": os.environ["PATH"], "HOME": str(user_home), "TMPDIR": tempfile.gettempdir()},
    )
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
    writer.write(msgspec.json.encode(opening()) + b"\n" + call(1, "ping"))
    assert msgspec.json.decode(await reader.readline(), type=Hello).protocol == PROTOCOL
    assert msgspec.json.decode(await reader.readline(), type=Reply).id == 1
    writer.write(call(2, "ping"))
    assert msgspec.json.decode(await reader.readline(), type=Reply).id == 2
    writer.close()
    assert await process.wait() == 0


async def test_the_shelf_is_served(user_home: Path, home: Home) -> None:
    models = user_home / ".lmstudio" / "models" / "maker"
    models.mkdir(parents=True)
    file = models / "tiny.gguf"
    file.write_bytes(DEMO_GGUF.read_bytes())
    async with session(user_home) as client:
        (found,) = await client.call("scan", {}, list[FoundView])
        assert (found.name, found.path, found.architecture) == ("tiny", str(file), "llama")
        notes: list[Any] = []
        args = {"modelcell": "tiny", "path": str(file)}
        model = await client.call("identify", args, ModelFiles, lambda note: notes.append(msgspec.json.decode(note)))
        assert model.size_bytes == file.stat().st_size
        assert notes[-1] == {"done_bytes": model.size_bytes, "total_bytes": model.size_bytes}
        assert await client.call("find", {"model": model}, str) == str(file)
        assert await client.call("path_of", {"modelcell": "tiny"}, str) == str(file)
        header = await client.call("header", {"path": str(file)}, GgufHeader)
        assert header.size_bytes == model.size_bytes
        with pytest.raises(ModelFileError, match="no model file /nowhere"):
            await client.call("header", {"path": "/nowhere"}, GgufHeader)
        with pytest.raises(ModelFileError):
            await client.call("keep", {"model": model}, str)


async def test_the_machine_is_checked_there(user_home: Path, home: Home) -> None:
    async with session(user_home) as client:
        checks = await client.call("checks", {}, list[CheckView])
    seen = {check.what: check for check in checks}
    assert {"swarmesh", "python", "cpu", "memory", "home", "sockets", "settings", "engine"} <= set(seen)
    assert "queennode" not in seen
    assert seen["engine"].verdict == "ok"
    assert str(home.root) in seen["home"].found
