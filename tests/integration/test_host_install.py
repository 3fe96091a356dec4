"""Software on another host: everything but SSH, with the real program, the real pip and a home of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from install_bed import HIVE, left_in
from shell_here import ShellHere, ended
from small_disk import fill, small_disk
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.install import MachineFacts, _install, install, look, uninstall
from swarmesh.hosts.remote_command import REMOTE_COMMAND
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.software import Software, pack_software, write_wheel
from swarmesh.hosts.wheels import NoRegistryError, NoWheelError
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import Step, StepState

pytestmark = pytest.mark.timeout(300)
"""The first test's setup is a whole installation, which writes much; other tests may use the same disk."""
NO_REGISTRY = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
"""The settings of a host whose pip reaches nothing."""
METADATA = b"Metadata-Version: 2.1\nName: rustbee\nVersion: 0.1.0\n"
OLD, USED = "0" * 16, "1" * 16


class Installed(msgspec.Struct):
    """A host after it was added: once while its installation was killed, then twice at the same time."""

    home: Path
    shell: ShellHere
    software: Software
    wheels_dir: Path
    steps: list[Step]
    facts: list[MachineFacts]
    envs: set[str]

    @property
    def root(self) -> Path:
        return self.home / ".swarmesh"

    def files(self) -> list[tuple[Path, str]]:
        """Everything that a host without a registry gets."""
        software = self.software
        ours = [(software.lock, software.lock.name), (software.pip, "pip.zip"), (software.wheel, software.wheel.name)]
        return [*ours, *((wheel, wheel.name) for wheel in sorted(self.wheels_dir.glob("py*/*.whl")))]


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Software:
    return pack_software(tmp_path_factory.mktemp("software"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, software: Software) -> Iterator[Installed]:
    home = tmp_path_factory.mktemp("home")
    envs = home / ".swarmesh" / "envs"
    for name in (OLD, USED):
        (envs / name / "bin").mkdir(parents=True)
    envs.chmod(0o700)
    wheels_dir = tmp_path_factory.mktemp("wheels")
    host = Installed(home, ShellHere(home, **NO_REGISTRY), software, wheels_dir, [], [], set())
    worker = [shutil.which("sh") or "/bin/sh", "-c", "read x", str(envs / USED / "bin" / "python")]
    with subprocess.Popen(worker, stdin=subprocess.PIPE) as process:
        try:
            asyncio.run(_add(host))
        except NoRegistryError as error:
            pytest.skip(f"this machine reaches no package registry: {error.message}")
        finally:
            process.kill()
    host.envs = {path.name for path in envs.iterdir()}
    yield host
    asyncio.run(uninstall(host.shell, HIVE, keep_models=False))
    assert not host.root.exists()


async def _add(host: Installed) -> None:
    killed: list[RemoteProcess] = []  # Those that tried, looked and installed; the third one dies.

    class Doomed:
        async def start(self, order: Mapping[str, Any]) -> RemoteProcess:
            killed.append(await host.shell.start(order))
            return killed[-1]

    def kill(step: Step) -> None:
        if step.step == "packages" and len(killed) == 3:
            killed[-1].kill()

    with pytest.raises(SwarmeshError, match="it ended with -9"):
        await install(Doomed(), host.software, host.wheels_dir, kill, hive=HIVE)
    assert not (await look(host.shell, host.software.digest)).ready
    again = [install(host.shell, host.software, host.wheels_dir, host.steps.append, hive=HIVE) for _ in range(2)]
    host.facts = await asyncio.gather(*again)


def test_a_host_without_a_registry_gets_everything_from_here(installed: Installed) -> None:
    for facts in installed.facts:
        assert facts.ready
        assert facts.root == str(installed.root)
    names = [step.step for step in installed.steps if step.state is StepState.DONE]
    assert names.count("look") >= 2
    for name in ("environment", "packages", "check"):
        assert name in names
    totals = {step.total_bytes for step in installed.steps if step.done_bytes}
    assert max(totals) == sum(path.stat().st_size for path, _ in installed.files())
    assert max(step.done_bytes for step in installed.steps) == max(totals)


def test_only_the_owner_may_look_in(installed: Installed) -> None:
    env = installed.root / "envs" / installed.software.digest
    for path in (installed.root, installed.root / "bin", env.parent, env, env / "bin", env / "lib"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert not (installed.root / "incoming").exists()


def test_versions_nobody_uses_go_and_others_stay(installed: Installed) -> None:
    assert installed.envs == {USED, installed.software.digest}


async def test_installing_what_is_there_sends_nothing(installed: Installed) -> None:
    steps: list[Step] = []
    mark = installed.root / "envs" / installed.software.digest / ".ready"
    before = mark.stat().st_mtime_ns
    facts = await install(installed.shell, installed.software, installed.wheels_dir, steps.append, hive=HIVE)
    assert facts.ready
    assert [step.step for step in steps if step.state is StepState.DONE] == ["look", "tidy"]
    assert mark.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["swarmesh", "llorch-pool"])
def test_commands_for_use_by_hand_belong_to_the_hive(installed: Installed, name: str) -> None:
    command = installed.root / "bin" / name
    assert str(installed.root / "hives" / HIVE) in command.read_text()
    env = {"HOME": str(installed.home), "PATH": os.environ["PATH"]}
    done = subprocess.run([command, "--help"], env=env, capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout


def test_the_packed_package_is_the_one_that_runs_there(installed: Installed) -> None:
    python = installed.root / "envs" / installed.software.digest / "bin" / "python"
    code = "import swarmesh; print(swarmesh.__version__, swarmesh.__file__)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    version, _, path = done.stdout.strip().partition(" ")
    assert version in installed.software.wheel.name
    assert Path(path).is_relative_to(installed.root / "envs" / installed.software.digest)


async def test_an_environment_whose_python_was_replaced_is_not_ready(installed: Installed) -> None:
    mark = installed.root / "envs" / installed.software.digest / ".ready"
    before = mark.read_text()
    mark.write_text("/usr/bin/python3.99")
    try:
        assert not (await look(installed.shell, installed.software.digest)).ready
    finally:
        mark.write_text(before)
    assert (await look(installed.shell, installed.software.digest)).ready


class OtherMachine(ShellHere):
    """This machine, calling itself one of 32 bits."""

    async def start(self, order: Mapping[str, Any]) -> RemoteProcess:
        argv = ["setarch", "i686", "/bin/sh", "-c", REMOTE_COMMAND]
        return await RemoteProcess.start(argv, order, ended, self._environment)


@pytest.fixture
def other_machine(tmp_path: Path) -> OtherMachine:
    if not Path("/usr/bin/setarch").exists():
        pytest.skip("this machine cannot call itself another")
    told = subprocess.run(["/usr/bin/setarch", "i686", "uname", "-m"], capture_output=True, text=True, check=False)
    if told.stdout.strip() != "i686":
        pytest.skip("this machine cannot call itself another")
    return OtherMachine(tmp_path, **NO_REGISTRY)


async def test_a_machine_without_wheels_is_named(
    installed: Installed, other_machine: OtherMachine, tmp_path: Path
) -> None:
    with pytest.raises(NoWheelError, match=r"no wheel of \S+==\S+ .*i686"):
        await install(other_machine, installed.software, installed.wheels_dir, lambda _: None, hive=HIVE)
    assert not left_in(tmp_path)


async def test_wheels_for_another_machine_are_refused_by_name(
    installed: Installed, other_machine: OtherMachine, tmp_path: Path
) -> None:
    order: dict[str, object] = {"action": "install", "digest": "a" * 16, "hive": HIVE, "registry": False}
    with pytest.raises(RemoteError, match=r"no wheel of \w+ .*i686.*: \w+-.*x86_64.whl") as error:
        await _install(other_machine, order, installed.files(), lambda _: None)
    assert error.value.code == "host_wheel_unsupported"
    assert not left_in(tmp_path)


async def test_a_host_with_a_registry_fetches_by_itself_and_what_does_not_start_is_removed(
    installed: Installed, tmp_path: Path
) -> None:
    home, little, wheel = tmp_path / "home", tmp_path / "requirements.lock", tmp_path / installed.software.wheel.name
    home.mkdir()
    lines = installed.software.lock.read_text().replace("\\\n    ", "").splitlines()
    little.write_text("\n".join(line for line in lines if line.startswith(("mdurl==", "idna=="))) + "\n")
    info = wheel.name.removesuffix("-py3-none-any.whl")
    write_wheel(wheel, {f"{info}.dist-info/METADATA": METADATA, "swarmesh.py": b""}, f"{info}.dist-info")
    (wheels,) = installed.wheels_dir.glob("py*")
    shell = ShellHere(home, PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    software = msgspec.structs.replace(installed.software, lock=little, wheel=wheel)
    steps: list[Step] = []
    with pytest.raises(RemoteError, match="does not start: ModuleNotFoundError: No module named 'apsw'") as error:
        await install(shell, software, installed.wheels_dir, steps.append, hive=HIVE)
    assert error.value.code == "host_install_failed"
    assert "packages" in [step.step for step in steps if step.state is StepState.DONE]
    assert not left_in(home)


async def test_a_full_disk_is_told_before_anything_is_sent(software: Software, tmp_path: Path) -> None:
    steps: list[Step] = []
    with small_disk(tmp_path / "disk", "64m") as disk:
        with pytest.raises(RemoteError, match=r"needs \d+ MiB below .*, and 6\d MiB are free") as error:
            await install(ShellHere(disk), software, tmp_path, steps.append, hive=HIVE)
        assert error.value.code == "host_disk_full"
        assert {step.step for step in steps} == {"look"}
        assert not left_in(disk)


async def test_a_disk_that_becomes_full_is_told_and_left_as_it_was(software: Software, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "400m") as disk:

        def occupy(step: Step) -> None:
            if step.step == "send" and not step.done_bytes:
                fill(disk / "other")

        with pytest.raises(RemoteError) as error:
            await install(ShellHere(disk), software, tmp_path, occupy, hive=HIVE)
        assert error.value.code == "host_disk_full"
        assert left_in(disk) == ["other"]
