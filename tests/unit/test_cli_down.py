"""`swarmesh down --all` with rustbees on other hosts; what it does on its own machine is in test_cli_queennode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell, shell_at
from fake_queen import error, host, rustbee
from swarmesh.cli import down
from swarmesh.config.home import Home, QueenFile
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.store.records import HostRecord, WorkerRecord
from swarmesh.store.sqlite import SqliteStore


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        note = QueenFile(shell.queen.url, 1, 1.0, "0.1.0")
        monkeypatch.setattr(down, "running_queen", lambda _home: note)
        monkeypatch.setattr(down, "stop_queen", lambda _home: note)
        monkeypatch.setattr(down, "STOP_SLACK_S", -5.0)
        yield shell


def asked_to_stop(shell: Shell) -> set[str]:
    return {seen.path.rpartition("/")[2] for seen in shell.queen.seen if seen.method == "DELETE"}


def test_rustbees_on_hosts_within_reach_are_stopped_like_any(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac", rustbees=["rustbee-2"])
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1"), "rustbee-2": rustbee("rustbee-2", host="mac")}
    result = shell.run("down", "--all")
    assert (result.code, result.err) == (0, "")
    assert "2 rustbees have ended, nothing is left" in result.out


def test_a_host_out_of_reach_is_named_with_its_rustbees_and_the_rest_is_stopped(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac", status="unreachable", rustbees=["rustbee-0"])
    shell.queen.hosts["box"] = host("box")
    away = rustbee("rustbee-1", host="mac", status="suspect")
    bees = {"rustbee-1": away, "rustbee-2": rustbee("rustbee-2", host="box"), "rustbee-3": rustbee("rustbee-3")}
    shell.queen.rustbees = bees
    gone = error("host_unreachable", "mac is off")
    shell.queen.answers["DELETE", "/v2/swarmesh/rustbees/rustbee-1"] = 502, gone
    result = shell.run("down", "--all")
    assert result.code == 1
    assert result.out == "the queennode, pid 1, has ended\n"
    assert "error: not known to have ended (mac: rustbee-0, rustbee-1)" in result.err
    assert "'swarmesh rustbee stop' there" in result.err
    assert asked_to_stop(shell) == {"rustbee-1", "rustbee-2", "rustbee-3"}


def test_one_that_the_queen_gave_up_may_live_on_its_lost_host(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac", status="connecting")
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1", host="mac", status="dead")}
    shell.queen.answers["DELETE", "/v2/swarmesh/rustbees/rustbee-1"] = 202, {}
    result = shell.run("down", "--all")
    assert result.code == 1
    assert "(mac: rustbee-1)" in result.err


def test_one_that_does_not_end_on_a_host_within_reach_is_named_too(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac")
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1", host="mac")}
    shell.queen.answers["DELETE", "/v2/swarmesh/rustbees/rustbee-1"] = 202, {}
    result = shell.run("down", "--all")
    assert result.code == 1
    assert "still there after" in result.err
    assert "(mac: rustbee-1)" in result.err


def test_a_host_out_of_reach_without_rustbees_is_no_error(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac", status="unreachable")
    assert shell.run("down", "--all").code == 0


def test_without_a_queen_nothing_on_other_hosts_can_be_stopped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(down, "running_queen", lambda _home: None)
    monkeypatch.setattr(down, "stop_queen", lambda _home: None)
    assert shell.run("down", "--all").code == 0
    asyncio.run(remember(Home(shell.home)))
    result = shell.run("down", "--all")
    assert (result.code, result.out) == (1, "no queennode runs here\n")
    assert "error: without a queennode nothing on other hosts can be stopped (mac: rustbee-1)" in result.err
    assert "next: 'swarmesh queennode start', then 'swarmesh down --all' again." in result.err


async def remember(home: Home) -> None:
    store = await SqliteStore.open(home.hivecomb)
    await store.put_host(HostRecord(HostName("mac"), "mac.home.arpa", "", 0, "", 0.5, "SHA256:abc", 1))
    fixed: dict[str, Any] = {"backend": "cpu", "location": "unix:/a.sock", "slots": 1, "status": "healthy", "pid": 1}
    fixed |= {"engine_pid": 2, "boot_id": "b", "nonce": "n", "key_sha256": b"", "direct": False, "spec": b"{}"}
    for number, name in enumerate(("mac", "local"), start=1):
        await store.put_worker(
            WorkerRecord(
                worker_id=WorkerId(f"rustbee-{number}"),
                modelcell=ModelName("demo"),
                host=name,
                registered_at_ms=1,
                **fixed,
            )
        )
    await store.close()


def test_one_that_the_queen_could_not_take_back_is_stopped_and_counted(shell: Shell) -> None:
    why = error("not_adopted", "its note cannot be read")["error"]
    shell.queen.hosts["mac"] = host("mac")
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1", host="mac", status="suspect", error=why)}
    result = shell.run("down", "--all")
    assert (result.code, result.out) == (0, "the queennode, pid 1, has ended\n1 rustbee has ended, nothing is left\n")
    assert asked_to_stop(shell) == {"rustbee-1"}


def test_one_that_comes_meanwhile_is_stopped_too(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.queen.hosts["mac"] = host("mac")
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1", host="mac")}
    late = {"rustbee-2": rustbee("rustbee-2", host="mac")}

    def wait(*_args: object) -> None:
        shell.queen.rustbees |= late
        late.clear()

    monkeypatch.setattr(down, "wait_gone", wait)
    result = shell.run("down", "--all")
    assert result.code == 0
    assert "2 rustbees have ended, nothing is left" in result.out
    assert asked_to_stop(shell) == {"rustbee-1", "rustbee-2"}


def test_without_all_it_says_where_rustbees_go_on(shell: Shell) -> None:
    bees = [rustbee("rustbee-0", host="m1"), rustbee("rustbee-9", host="m1", status="dead")]
    bees += [rustbee(f"rustbee-{number}", host="m0") for number in (1, 2, 3)]
    bees += [rustbee("rustbee-4", host="localhost")]  # What lives here, this machine itself knows best.
    shell.queen.rustbees = {bee["rustbee_id"]: bee for bee in bees}
    result = shell.run("down")
    assert (result.code, result.out) == (0, "the queennode, pid 1, has ended\n")
    assert result.err == "4 rustbees go on (3 on m0, 1 on m1); 'swarmesh down --all' stops them too\n"
    assert asked_to_stop(shell) == set()


def test_a_queen_who_does_not_say_what_goes_on_is_stopped_all_the_same(shell: Shell) -> None:
    shell.queen.answers["GET", "/v2/swarmesh/rustbees"] = 500, error("internal_error", "it broke")
    result = shell.run("down")
    assert (result.code, result.out) == (0, "the queennode, pid 1, has ended\n")
    assert result.err == "which rustbees go on elsewhere is not known: it broke\n"


def test_a_directory_of_sockets_outside_the_home_is_taken_away_once_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / ("long" * 25)
    home = Home(root)
    home.make()
    assert not home.sockets_dir.is_relative_to(root)
    with shell_at(root, monkeypatch, capsys) as shell:
        (home.sockets_dir / "rustbee-1.sock").touch()
        assert shell.run("down", "--all").code == 0
        assert home.sockets_dir.is_dir(), "what is in use stays"
        (home.sockets_dir / "rustbee-1.sock").unlink()
        assert shell.run("down").code == 0
        assert home.sockets_dir.is_dir()
        assert shell.run("down", "--all").code == 0
    assert not home.sockets_dir.exists()
