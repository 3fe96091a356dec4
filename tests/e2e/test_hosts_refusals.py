"""Machines that cannot be added: each a clear error, nothing executed, nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from host_bed import Bed, Machine
from host_swarm import HostSwarm, Trio, error_of, host_swarm

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostSwarm, Bed]]:
    """A queen without hosts."""
    with host_swarm(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def canary() -> Iterator[str]:
    """A command that must not be executed; a short one, so that its length is not what is wrong with it."""
    with tempfile.TemporaryDirectory(prefix="c") as directory:
        yield f"touch {directory}/c"
        assert not any(Path(directory).iterdir()), "it was executed"


def refused(swarm: HostSwarm, *arguments: str, code: str) -> str:
    """Have ``hosts add`` refused with a code, and nothing remembered; what it said."""
    done = swarm.run("hosts", "add", "--json", *arguments, check=False)
    assert done.returncode == 1, (done.stdout, done.stderr)
    error = error_of(done)
    assert error["code"] == code, error
    assert error["hint"] or error["code"] == "invalid_value", error
    assert swarm.hosts() == {}
    assert swarm.known_hosts() == ""
    return str(error["message"])


def left_alone(swarm: HostSwarm, machine: Machine) -> None:
    """Nothing lies or runs there; what answered may itself need a moment to end."""
    swarm.until(lambda: not machine.processes(), what="no process there")
    assert machine.files() == []


HOSTILE = ["-oProxyCommand={}", "a b", "$({})", "a;{}", "a`{}`", "a\n{}", "a/../b", "-o{}@a"]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_host_name(alone: tuple[HostSwarm, Bed], canary: str, word: str) -> None:
    refused(alone[0], "--name", "bee", "--", word.format(canary), code="invalid_value")


def test_an_option_in_the_place_of_a_host_name(alone: tuple[HostSwarm, Bed], canary: str) -> None:
    done = alone[0].run("hosts", "add", f"-oProxyCommand={canary}", check=False)
    assert done.returncode == 2
    assert alone[0].hosts() == {}


@pytest.mark.parametrize("word", ["-oProxyCommand={}", "a b", "$({})", "a;{}"])
@pytest.mark.parametrize("option", ["--user", "--name"])
def test_a_hostile_user_or_name(alone: tuple[HostSwarm, Bed], canary: str, option: str, word: str) -> None:
    refused(alone[0], f"{option}={word.format(canary)}", "--", "127.0.0.1", code="invalid_value")


def test_another_key_than_the_one_expected(alone: tuple[HostSwarm, Bed]) -> None:
    swarm, bed = alone
    machine = bed.machine()
    wrong = bed.machine().fingerprint
    message = add(swarm, machine, "--fingerprint", wrong, code="host_key_changed")
    assert machine.fingerprint in message
    left_alone(alone[0], machine)


def test_a_host_that_wants_a_password(alone: tuple[HostSwarm, Bed]) -> None:
    machine = alone[1].machine(password_only=True)
    assert "password" in add(alone[0], machine, code="host_denied")
    left_alone(alone[0], machine)


def test_a_key_that_is_not_let_in(alone: tuple[HostSwarm, Bed], tmp_path: Path) -> None:
    machine = alone[1].machine()
    (machine.host_dir.parent / "etc" / "authorized_keys").write_text("")
    add(alone[0], machine, code="host_denied")
    left_alone(alone[0], machine)


def test_a_host_without_python(alone: tuple[HostSwarm, Bed]) -> None:
    machine = alone[1].machine(without_python=True)
    assert "Python 3.11" in add(alone[0], machine, code="host_without_python")
    left_alone(alone[0], machine)


def test_a_full_disk(alone: tuple[HostSwarm, Bed]) -> None:
    machine = alone[1].machine(disk_mib=8)
    add(alone[0], machine, code="host_disk_full")
    left_alone(alone[0], machine)


def test_another_architecture(alone: tuple[HostSwarm, Bed]) -> None:
    machine = alone[1].machine(machine="i686")
    assert "i686" in add(alone[0], machine, code="host_wheel_unsupported")
    left_alone(alone[0], machine)


def test_nobody_at_that_address(alone: tuple[HostSwarm, Bed]) -> None:
    machine = alone[1].machine()
    machine.power_off()
    add(alone[0], machine, code="host_unreachable")


def add(swarm: HostSwarm, machine: Machine, *options: str, code: str) -> str:
    words = ("--name", "bee", "--identity", str(machine.identity), *options, "--", machine.address)
    return refused(swarm, *words, code=code)


def test_a_host_whose_key_is_forgotten_or_changes(trio: Trio) -> None:
    swarm, machine = trio.swarm, trio.machines["bee-1"]
    trio.whole()
    before, engines = swarm.known_hosts(), swarm.engines()
    assert before
    swarm.run("down")
    (swarm.home / "ssh" / "known_hosts").unlink()
    swarm.start()
    row = swarm.host_until("bee-1", "unreachable")
    assert row["error"]["code"] == "host_key_unknown"
    swarm.run("down")
    (swarm.home / "ssh" / "known_hosts").write_text(before)
    old = machine.new_host_key()
    swarm.start()
    row = swarm.host_until("bee-1", "unreachable")
    assert row["error"]["code"] == "host_key_changed"
    again = add_again(trio, "bee-1")
    assert again.returncode == 1
    assert error_of(again)["code"] == "host_key_changed"
    assert swarm.known_hosts() == before, "the old key is still the only one"
    assert set(swarm.hosts()) == set(trio.machines)
    old()
    swarm.until(lambda: swarm.engines() == engines, timeout_s=30, what="with its own key it is taken back")


def add_again(trio: Trio, name: str) -> CompletedProcess[str]:
    return trio.swarm.add(trio.machines[name].address, name, "--json", check=False)
