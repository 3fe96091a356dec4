"""Model files to and from another host: real processes over pipes, a disk that fills up, senders that go away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from remote_rig import connect, hive_home_of, opening
from small_disk import fill, small_disk
from swarmesh.hosts.process_identity import identify
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.session import FileSize, Kept, Opening, Purpose, Wanted

Until = Callable[..., Awaitable[Any]]

DIRECTORY = "0123456789abcdef"
MIB = 1 << 20


@pytest.fixture
def user_home(tmp_path: Path) -> Path:
    home = tmp_path / "u"
    home.mkdir()
    return home


def content_of(size_bytes: int) -> bytes:
    return b"GGUF" + hashlib.shake_128(b"seed").digest(size_bytes - 4)


def arriving(content: bytes, **changes: Any) -> Opening:
    facts: dict[str, Any] = {"name": "big.gguf", "directory": DIRECTORY, "size_bytes": len(content)}
    return opening(Purpose.RECEIVE, **{**facts, "sha256": hashlib.sha256(content).hexdigest(), **changes})


def place(user_home: Path) -> Path:
    return hive_home_of(user_home).models_dir / DIRECTORY / "big.gguf"


def part_size(user_home: Path) -> int:
    return sum(path.stat().st_size for path in place(user_home).parent.glob("*.part"))


async def put(remote: RemoteProcess, data: bytes) -> None:
    try:
        await remote.send(data)
    except ConnectionError:
        return  # Why it takes no more, its next line says.


async def read_all(remote: RemoteProcess) -> bytes:
    data = bytearray()
    while chunk := await remote.bytes(MIB):
        data += chunk
    return bytes(data)


async def test_a_large_file_goes_there_and_comes_back(user_home: Path) -> None:
    content = content_of(40 * MIB + 7)
    remote = await connect(user_home, arriving(content))
    assert (await remote.read(Wanted)).offset == 0
    await put(remote, content)
    assert (await remote.read(Kept)).path == str(place(user_home))
    assert await remote.close() == 0
    assert place(user_home).read_bytes() == content
    assert place(user_home).stat().st_mode & 0o777 == 0o600

    remote = await connect(user_home, opening(Purpose.SEND, path=str(place(user_home)), offset=3 * MIB + 1))
    assert (await remote.read(FileSize)).size_bytes == len(content)
    assert await read_all(remote) == content[3 * MIB + 1 :]
    assert await remote.close() == 0


async def test_a_sender_that_goes_away_leaves_what_has_arrived(user_home: Path, until: Until) -> None:
    content = content_of(6 * MIB)
    remote = await connect(user_home, arriving(content))
    await remote.read(Wanted)
    await put(remote, content[: 3 * MIB + 1])
    remote.end_input()
    with pytest.raises(RemoteError, match=r"ended after 3,145,729 of 6,291,456 bytes") as caught:
        await remote.line()
    assert caught.value.code == "transfer_failed"
    assert await remote.close() == 1

    remote = await connect(user_home, arriving(content))
    assert (await remote.read(Wanted)).offset == 3 * MIB + 1
    await put(remote, content[3 * MIB + 1 : 5 * MIB])
    await until(lambda: part_size(user_home) > 4 * MIB)
    remote.kill()
    await remote.close()

    remote = await connect(user_home, arriving(content))
    offset = (await remote.read(Wanted)).offset
    assert 4 * MIB < offset <= 5 * MIB
    await put(remote, content[offset:])
    await remote.read(Kept)
    await remote.close()
    assert place(user_home).read_bytes() == content


async def test_a_sender_that_falls_silent_lets_go_of_the_file(user_home: Path) -> None:
    content = content_of(MIB)
    silent = await connect(user_home, arriving(content), limits="silence_limit_s=2.0")
    await silent.read(Wanted)
    await put(silent, content[:1000])
    successor = await connect(user_home, arriving(content))
    with pytest.raises(RemoteError, match=r"nothing moved for 2 s"):
        await silent.line()
    assert (await successor.read(Wanted)).offset == 1000
    await put(successor, content[1000:])
    await successor.read(Kept)
    assert await silent.close() == 1
    assert await successor.close() == 0


async def test_a_reader_that_falls_silent_is_given_up(user_home: Path) -> None:
    content = content_of(40 * MIB)
    place(user_home).parent.mkdir(parents=True)
    place(user_home).write_bytes(content)
    wanted = opening(Purpose.SEND, path=str(place(user_home)))
    remote = await connect(user_home, wanted, limits="silence_limit_s=0.3")
    process = identify(remote.pid)
    assert process is not None
    await remote.read(FileSize)
    await process.wait_exit()
    data = await read_all(remote)
    assert len(data) < len(content)
    assert content.startswith(data), "nothing but bytes of the file"
    assert await remote.close() == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "/nowhere.gguf", "relative.gguf"])
async def test_a_file_of_the_user_is_not_sent(user_home: Path, path: str) -> None:
    remote = await connect(user_home, opening(Purpose.SEND, path=path))
    with pytest.raises(RemoteError) as caught:
        await remote.line()
    assert caught.value.code == "forbidden"
    assert await remote.close() == 1


async def test_another_content_is_refused(user_home: Path) -> None:
    content = content_of(2 * MIB)
    remote = await connect(user_home, arriving(content, sha256="0" * 64))
    await remote.read(Wanted)
    await put(remote, content)
    with pytest.raises(RemoteError) as caught:
        await remote.line()
    assert caught.value.code == "model_digest_mismatch"
    assert await remote.close() == 1
    assert list(place(user_home).parent.glob("*.gguf")) == []
    assert part_size(user_home) == 0


async def test_a_disk_that_is_too_small_is_found_out_first(user_home: Path) -> None:
    home = hive_home_of(user_home)
    home.make()
    with small_disk(home.models_dir, "1m"):
        remote = await connect(user_home, arriving(content_of(2 * MIB)))
        with pytest.raises(RemoteError, match=r"needs 2 MiB more, and 1 MiB are free") as caught:
            await remote.line()
        assert caught.value.code == "host_disk_full"
        assert await remote.close() == 1


async def test_a_disk_that_fills_up_on_the_way_keeps_what_has_arrived(user_home: Path, until: Until) -> None:
    home = hive_home_of(user_home)
    home.make()
    content = content_of(3 * MIB + 5)
    with small_disk(home.models_dir, "4m"):
        remote = await connect(user_home, arriving(content))
        await remote.read(Wanted)
        await put(remote, content[:MIB])
        await until(lambda: part_size(user_home) == MIB)
        fill(home.models_dir / "somebody elses")
        await put(remote, content[MIB:])
        with pytest.raises(RemoteError, match=r"needs \d MiB more, and 0 MiB are free") as caught:
            await remote.line()
        assert caught.value.code == "host_disk_full"
        assert "arrived and are kept" in caught.value.hint
        assert await remote.close() == 1
        (home.models_dir / "somebody elses").unlink()

        remote = await connect(user_home, arriving(content))
        offset = (await remote.read(Wanted)).offset
        assert offset >= MIB
        await put(remote, content[offset:])
        await remote.read(Kept)
        await remote.close()
        assert place(user_home).read_bytes() == content


async def test_of_two_at_once_the_second_finds_the_whole_file(user_home: Path) -> None:
    content = content_of(4 * MIB)
    first, second = await connect(user_home, arriving(content)), await connect(user_home, arriving(content))
    asking = {asyncio.create_task(remote.read(Wanted)): remote for remote in (first, second)}
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    (one,) = done
    assert one.result().offset == 0
    await put(asking[one], content)
    await asking[one].read(Kept)
    (other,) = set(asking) - {one}
    assert (await other).offset == len(content)
    assert (await asking[other].read(Kept)).path == str(place(user_home))
    assert [await first.close(), await second.close()] == [0, 0]
    assert [path.name for path in place(user_home).parent.iterdir()] == ["big.gguf"]
