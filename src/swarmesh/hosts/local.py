"""This machine as a host: agents are detached processes that outlive whoever started them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from swarmesh import __version__
from swarmesh.config.home import Home
from swarmesh.config.settings import load_settings
from swarmesh.core.errors import ConflictError, EngineStartError, NotFoundError
from swarmesh.hosts.agent_file import FILE_NAME, AgentFile, read_agent_file
from swarmesh.hosts.gpus import find_gpus
from swarmesh.hosts.host import HostFacts, HostLayout, SpawnedAgent
from swarmesh.hosts.memory import MIB, memory_mib
from swarmesh.hosts.process_identity import ProcessIdentity, boot_id, identify
from swarmesh.wire.spec import WorkerSpec

LOCAL_NAME: Final = "local"
WORKER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KILL_WAIT_S: Final = 5.0
"""How long a killed process may take to leave; it cannot refuse, but it may have memory to give back."""
DEAD_DIRS_KEPT: Final = 20
"""Directories of dead workers that are kept for their logs."""
LOG_TAIL_BYTES: Final = 16 * 1024
LOGS: Final = ("agent.out", "engine.log")
ENVIRONMENT: Final = frozenset(
    """PATH HOME USER LANG LC_ALL LC_CTYPE TMPDIR TZ LD_LIBRARY_PATH DYLD_LIBRARY_PATH CUDA_VISIBLE_DEVICES
    CUDA_HOME HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES GGML_VK_VISIBLE_DEVICES HF_HOME XDG_CACHE_HOME""".split()  # noqa: SIM905 - one name per line would be eighteen
)
"""What a worker inherits. Everything else stays behind: an owner's environment is full of secrets."""


class LocalHost:
    """See `swarmesh.hosts.host.Host`."""

    def __init__(self, home: Home, name: str = LOCAL_NAME) -> None:
        self._home = home
        self._name = name
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def name(self) -> str:
        """See `Host`."""
        return self._name

    async def probe(self) -> HostFacts:
        """See `Host`."""
        total_mib, available_mib = memory_mib()
        settings = load_settings(self._home.config_file).rustbee
        self._home.make()
        return HostFacts(
            name=self._name,
            total_mib=total_mib,
            available_mib=available_mib,
            cpu_cores=os.cpu_count() or 1,
            layout=_layout(self._home),
            gpus=await find_gpus(total_mib, available_mib),
            llama_server=_llama_server(settings.llama_server),
            llama_server_set=settings.llama_server,
            threads=settings.threads,
            disk_free_mib=shutil.disk_usage(self._home.root).free // MIB,
            system=platform.system(),
            machine=platform.machine(),
            python=platform.python_version(),
            version=__version__,
            boot_id=boot_id(),
        )

    async def spawn(self, spec: WorkerSpec) -> SpawnedAgent:
        """See `Host`."""
        self._home.make()
        self._check_free(spec.rustbee_id)
        work_dir = self._dir(spec.rustbee_id)
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        child = self._start(work_dir)
        self._children[spec.rustbee_id] = child
        identity = identify(child.pid)
        if identity is None or child.stdin is None:
            raise EngineStartError(f"the agent of {spec.rustbee_id} ended at once: {self._tail(spec.rustbee_id)}")
        # Written before the agent knows what it is, so that it can be found and ended at every moment of its life.
        _first_file(spec, identity).write(work_dir)
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
            stdin.write(msgspec.json.encode(spec))
        return SpawnedAgent(spec.rustbee_id, child.pid, identity.started_at, identity.boot_id)

    async def stop(self, worker_id: str, grace_s: float) -> None:
        """See `Host`."""
        file = read_agent_file(self._dir(worker_id))
        if file is not None:
            await self._end(file, grace_s)
            self._clear(self._dir(worker_id), file)

    async def wait_exit(self, worker_id: str) -> None:
        """See `Host`."""
        file = read_agent_file(self._dir(worker_id))
        if file is not None:
            await _agent(file).wait_exit()
        self._reap()

    async def workers(self) -> list[AgentFile]:
        """See `Host`."""
        self._reap()
        alive: list[AgentFile] = []
        for work_dir in self._work_dirs():
            file = read_agent_file(work_dir)
            if file is None:
                continue
            if _agent(file).alive:
                alive.append(file)
            else:
                self._clear(work_dir, file)
        self._forget_oldest()
        return alive

    async def tail(self, worker_id: str, lines_max: int = 20) -> str:
        """See `Host`."""
        return self._tail(worker_id, lines_max)

    async def reach(self, worker_id: str, location: str) -> str:  # noqa: ARG002 - on one machine the way is the place
        """See `Host`."""
        return location

    async def let_go(self, worker_id: str) -> None:
        """See `Host`."""

    def _tail(self, worker_id: str, lines_max: int = 20) -> str:
        work_dir = self._dir(worker_id)
        lines = [line for name in LOGS for line in _last_lines(work_dir / name, lines_max)]
        return "\n".join(lines[-lines_max:])

    def _dir(self, worker_id: str) -> Path:
        # Ids come from command lines too; one that is a path would lead out of the home.
        if not WORKER_ID.fullmatch(worker_id):
            raise NotFoundError(f"{worker_id!r} is no id of a rustbee", hint="'swarmesh rustbee list' shows them.")
        return self._home.worker_dir(worker_id)

    def _check_free(self, worker_id: str) -> None:
        file = read_agent_file(self._dir(worker_id))
        if file is not None and _agent(file).alive:
            raise ConflictError(f"{worker_id} runs already, as pid {file.pid}")

    def _start(self, work_dir: Path) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name in ENVIRONMENT}
        with (work_dir / "agent.out").open("wb") as out:
            try:
                return subprocess.Popen(
                    [sys.executable, "-m", "swarmesh.worker"],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=out,
                    cwd=work_dir,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineStartError(f"{sys.executable} cannot be run: {error.strerror}") from error

    async def _end(self, file: AgentFile, grace_s: float) -> None:
        agent = _agent(file)
        agent.send(signal.SIGTERM)
        if await _ended_within(agent, grace_s):
            self._reap()
            return
        agent.send(signal.SIGKILL)
        await _ended_within(agent, KILL_WAIT_S)
        self._reap()

    def _clear(self, work_dir: Path, file: AgentFile) -> None:
        # An engine that outlived its agent holds memory nobody can use.
        if file.engine_pid:
            ProcessIdentity(file.engine_pid, file.engine_started_at, file.boot_id).send(signal.SIGKILL)
        for path in (file.socket_path, file.engine_socket_path):
            Path(path).unlink(missing_ok=True)
        (work_dir / FILE_NAME).unlink(missing_ok=True)

    def _reap(self) -> None:
        for worker_id, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[worker_id]

    def _work_dirs(self) -> list[Path]:
        if not self._home.workers_dir.is_dir():
            return []
        return sorted(path for path in self._home.workers_dir.iterdir() if path.is_dir())

    def _forget_oldest(self) -> None:
        dead = [path for path in self._work_dirs() if not (path / FILE_NAME).exists()]
        dead.sort(key=lambda path: path.stat().st_mtime)
        for path in dead[:-DEAD_DIRS_KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def _llama_server(setting: str) -> str:
    return shutil.which(Path(setting or "llama-server").expanduser()) or ""


def _layout(home: Home) -> HostLayout:
    return HostLayout(
        root=str(home.root),
        workers_dir=str(home.workers_dir),
        sockets_dir=str(home.sockets_dir),
        queen_file=str(home.queen_file),
    )


def _first_file(spec: WorkerSpec, identity: ProcessIdentity) -> AgentFile:
    return AgentFile(
        rustbee_id=spec.rustbee_id,
        modelcell=spec.modelcell,
        pid=identity.pid,
        started_at=identity.started_at,
        boot_id=identity.boot_id,
        socket_path=spec.socket_path,
        engine_socket_path=spec.engine_socket_path,
    )


def _agent(file: AgentFile) -> ProcessIdentity:
    return ProcessIdentity(file.pid, file.started_at, file.boot_id)


async def _ended_within(process: ProcessIdentity, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await process.wait_exit()
    except TimeoutError:
        return False
    return True


def _last_lines(path: Path, lines_max: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-lines_max:]
    except OSError:
        return []
