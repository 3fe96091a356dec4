"""Software on another host: everything but SSH, with the real program, the real pip and a home of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from shell_here import ShellHere, ended
from small_disk import fill, small_disk
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.install import MachineFacts, _install, install, look, uninstall
from swarmesh.hosts.process_identity import boot_id
from swarmesh.hosts.remote_command import REMOTE_COMMAND
from swarmesh.hosts.remote_process import RemoteProcess, RemoteShell
from swarmesh.hosts.software import Software, pack_software, write_wheel
from swarmesh.hosts.wheels import NoRegistryError, NoWheelError
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import Step, StepState

pytestmark = pytest.mark.timeout(300)
"""The first test's setup is a whole installation, which writes much; other tests may use the same disk."""
HIVE = "0123456789ab"
NO_REGISTRY = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
"""The settings of a host whose pip reaches nothing."""
METADATA = b"Metadata-Version: 2.1\nName: rustbee\nVersion: 0.1.0\n"
OLD, USED = "0" * 16, "1" * 16


def left_in(directory: Path) -> list[str]:
    """What is there, but for what a Rust compiler that pip asks for its version may leave."""
    return sorted({path.name for path in directory.iterdir()} - {".rustup"})


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


async def begin(shell: RemoteShell, **file: object) -> RemoteProcess:
    """An installation that waits for one file's bytes."""
    sent = {"name": "x.whl", "size_bytes": 6, "sha256": "0" * 64, **file}
    order = {"action": "install", "digest": "a" * 16, "registry": True, "files": [sent]}
    return await shell.start(order)


async def until_it_fails(process: RemoteProcess, at_send: Callable[[], None] = lambda: None) -> RemoteError:
    try:
        while "done" not in (line := json.loads(await process.line())):
            if line["step"]["step"] == "send":
                at_send()
    except RemoteError as error:
        return error
    finally:
        await process.close()
    pytest.fail(f"it succeeded: {line}")


async def test_a_connection_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    process = await begin(ShellHere(tmp_path))
    await process.send(b"abc")
    error = await until_it_fails(process, process.end_input)
    assert error.code == "host_install_failed"
    assert "ended 3 bytes before the end of x.whl" in error.message
    assert not left_in(tmp_path)


async def test_a_file_that_arrives_changed_is_not_used(tmp_path: Path) -> None:
    process = await begin(ShellHere(tmp_path))
    await process.send(b"abcdef")
    error = await until_it_fails(process)
    assert error.code == "host_install_failed"
    assert "x.whl did not arrive as it was sent" in error.message
    assert not left_in(tmp_path)


def slow_pip(path: Path, gate: Path, *, goes_on: bool = False) -> bytes:
    """A pip that tells that it runs, and then waits until somebody opens the gate; to go on for ever, or to end."""
    os.mkfifo(gate)
    with zipfile.ZipFile(path, "w") as file:
        code = f"print('Downloading x', flush=True)\nwith open({str(gate)!r}) as gate:\n    gate.read()\n"
        code += "print('Using cached x', flush=True)\nimport signal\nsignal.pause()\n" if goes_on else ""
        file.writestr("pip/__main__.py", code)
    return path.read_bytes()


def is_locked(home: Path) -> bool:
    with (home / ".swarmesh" / ".lock").open() as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


async def test_a_pip_whose_parent_was_killed_is_waited_for(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", tmp_path / "gate"
    home.mkdir()
    pip = slow_pip(tmp_path / "pip.zip", gate)
    files = [("requirements.lock", b"a==1\n"), ("pip.zip", pip)]
    named = [
        {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files
    ]
    order = {"action": "install", "digest": "a" * 16, "registry": True, "files": named}
    killed = await ShellHere(home).start(order)
    await killed.send(b"".join(data for _, data in files))
    while b"Downloading" not in await killed.line():
        assert is_locked(home)
    killed.kill()
    await killed.close()
    assert is_locked(home)
    next_one = await begin(ShellHere(home))
    handle = os.open(gate, os.O_WRONLY)
    assert is_locked(home), "what pip is still writing to is left alone"
    os.close(handle)
    error = await until_it_fails(next_one, next_one.end_input)
    assert "before the end of x.whl" in error.message
    assert not left_in(home)


async def stop_reading(process: RemoteProcess) -> None:
    """Close the pipe it writes to, as the loss of a connection does; asyncio does it a moment later."""
    process._process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]  # no public way
    await asyncio.sleep(0.05)


async def test_an_installation_ends_when_the_queen_is_gone(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", tmp_path / "gate"
    home.mkdir()
    pip = slow_pip(tmp_path / "pip.zip", gate, goes_on=True)
    files = [("requirements.lock", b"a==1\n"), ("pip.zip", pip)]
    named = [
        {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files
    ]
    order = {"action": "install", "digest": "a" * 16, "registry": True, "files": named}
    process = await ShellHere(home).start(order)
    await process.send(b"".join(data for _, data in files))
    while b"Downloading" not in await process.line():
        assert is_locked(home)
    (pip_there,) = psutil.Process(process.pid).children()
    await stop_reading(process)
    await asyncio.to_thread(gate.write_text, "go on")  # Its next line is one that nobody reads.
    await asyncio.to_thread(psutil.wait_procs, [pip_there], 10)
    assert not pip_there.is_running(), "it had not ended by itself"
    await process.close()
    assert not left_in(home)


async def test_taking_all_away_goes_on_when_the_queen_is_gone(tmp_path: Path) -> None:
    occupied(tmp_path, HIVE)
    with (tmp_path / ".swarmesh" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = await ShellHere(tmp_path).start({"action": "uninstall", "hive": HIVE, "keep_models": False})
        await stop_reading(process)
    await process._process.wait()
    await process.close()
    assert not left_in(tmp_path)


async def test_a_file_goes_nowhere_else(tmp_path: Path) -> None:
    process = await begin(ShellHere(tmp_path), name="../../x")
    error = await until_it_fails(process)
    assert error.code == "unknown_order"
    assert not left_in(tmp_path)


async def test_an_order_of_another_version_is_refused(tmp_path: Path) -> None:
    process = await ShellHere(tmp_path).start({"action": "dance"})
    error = await until_it_fails(process)
    assert error.code == "unknown_order"


async def test_what_is_not_installed_is_not_run(tmp_path: Path) -> None:
    process = await ShellHere(tmp_path).start({"action": "run", "digest": "a" * 16})
    error = await until_it_fails(process)
    assert error.code == "host_not_installed"
    assert not left_in(tmp_path)


async def test_what_runs_gets_the_rest_of_the_input_and_a_clean_environment(tmp_path: Path) -> None:
    env = tmp_path / ".swarmesh" / "envs" / ("a" * 16)
    python = env / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "{\\"args\\": \\"$*\\", \\"agent\\": \\"$SSH_AUTH_SOCK\\"}"\nexec cat\n')
    python.chmod(0o700)
    (env / ".ready").write_text(str(python.resolve()))
    process = await ShellHere(tmp_path, SSH_AUTH_SOCK="/tmp/agent").start({"action": "run", "digest": "a" * 16})
    await process.send(b'{"opening": 1}\nraw')
    process.end_input()
    assert json.loads(await process.line()) == {"args": "-I -m swarmesh.remote", "agent": ""}
    assert json.loads(await process.line()) == {"opening": 1}
    assert await process.bytes(10) == b"raw"
    await process.close()


def occupied(home: Path, hive: str, worker_pid: int = 0) -> Path:
    """A hive's home as it is on a host, with one rustbee."""
    at = home / ".swarmesh" / "hives" / hive
    for path in (at / "models", at / "rustbees" / "r1", at / "run", home / ".swarmesh" / "envs" / ("a" * 16)):
        path.mkdir(parents=True, exist_ok=True)
    (at / "models" / "m.gguf").write_bytes(b"m")
    (at / "worker.secret").write_bytes(b"s")
    started_at = psutil.Process(worker_pid).create_time() if worker_pid else 0.0
    agent = {"pid": worker_pid, "started_at": started_at, "boot_id": boot_id()}
    (at / "rustbees" / "r1" / "agent.json").write_text(json.dumps(agent))
    return at


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_a_hive_whose_rustbee_lives_is_not_removed(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    home = occupied(tmp_path, HIVE, worker.pid)
    with pytest.raises(RemoteError, match="r1") as error:
        await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    worker.kill()
    worker.wait()
    assert error.value.code == "host_in_use"
    assert (home / "worker.secret").exists()
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    assert not left_in(tmp_path)


async def test_the_last_hive_takes_everything_along_but_kept_models(tmp_path: Path) -> None:
    first, second = occupied(tmp_path, HIVE), occupied(tmp_path, "b" * 12)
    (tmp_path / ".swarmesh" / "bin").mkdir()
    (tmp_path / ".swarmesh" / "bin" / "swarmesh").write_text(f"SWARMESH_HOME={first}")
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=True)
    assert left_in(first) == ["models"]
    assert (tmp_path / ".swarmesh" / "envs").exists(), "another hive is there"
    assert (tmp_path / ".swarmesh" / "bin" / "swarmesh").read_text() == f"SWARMESH_HOME={second}"
    await uninstall(ShellHere(tmp_path), second.name, keep_models=False)
    assert left_in(tmp_path / ".swarmesh") == ["hives"]
    assert (first / "models" / "m.gguf").exists()
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    assert not left_in(tmp_path)


async def test_uninstalling_where_nothing_is_does_nothing(tmp_path: Path) -> None:
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    assert not left_in(tmp_path)
