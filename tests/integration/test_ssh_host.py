"""A host behind a real sshd: its connection is lost, stalled, refused and found again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from rustbee_rig import LittleQueen, make_spec
from ssh_host_bed import HIVE, Seen, make_host, ssh_children
from sshd_rig import SshdRig, missing, running_sshd
from swarmesh.config.home import Home, QueenFile, read_queen_file
from swarmesh.hosts import backoff as backoff_module
from swarmesh.hosts.session_client import PING_WAIT_S
from swarmesh.hosts.ssh_errors import HostLostError, HostUnreachableError
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.hosts.ssh_link import SshLink
from swarmesh.wire.hosts import HostStatus
from swarmesh.wire.session import PING_INTERVAL_S, Opening, Purpose

Until = Callable[..., Awaitable[Any]]

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no host over SSH: {missing()}")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    # A path that ssh would read otherwise than it is written, were it not told.
    home = Home(tmp_path / "a home, 100%d")
    home.make()
    return home


async def test_while_nobody_is_there_every_call_fails_at_once_and_tries_go_on(
    host: SshHost, sshd: SshdRig, seen: Seen, until: Until
) -> None:
    stopped_at_s = asyncio.get_running_loop().time()
    await sshd.stop()
    await seen.wait("up", "host_lost")
    with pytest.raises(HostUnreachableError):
        await host.probe()
    with pytest.raises(HostUnreachableError):
        await host.reach("rustbee-1", "unix:/nowhere")
    with pytest.raises(HostUnreachableError):
        await host.open_transfer(Opening(purpose=Purpose.SEND, hive=HIVE))
    await until(lambda: "refused" in str(host.error), "it was tried again")
    with pytest.raises(HostUnreachableError, match="refused"):
        await host.connected(within_s=0.1)
    assert host.status is HostStatus.UNREACHABLE
    assert host.since_s <= asyncio.get_running_loop().time() - stopped_at_s
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
    assert loop.time() - stopped_at_s < PING_INTERVAL_S + PING_WAIT_S + 5.0
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
        async with asyncio.timeout(15):
            await waiting
    finally:
        await host.close()
        await queen.stop()


async def test_a_host_that_forwards_nothing_says_so(home: Home, seen: Seen, tmp_path: Path) -> None:
    async with running_sshd(tmp_path / "far", home, AllowStreamLocalForwarding="no") as rig:
        rig.install_this()
        host = make_host(rig, home, seen)
        host.open()
        await seen.wait("host_forwarding_refused")
        with pytest.raises(HostUnreachableError) as caught:
            await host.connected(within_s=1.0)
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
