"""A ``llama-server`` binary of the user's own: a CUDA, ROCm, Vulkan, Metal or native CPU build of llama.cpp."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from swarmesh.core.errors import EngineStartError
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import EngineDoor, EngineInfo
from swarmesh.engines.engine_process import EngineProcess
from swarmesh.engines.gguf_keys import declared_pooling, require_model
from swarmesh.engines.llama_batch import batch_tokens
from swarmesh.engines.llama_client import LlamaClient
from swarmesh.engines.llama_devices import choose_backend, llama_environment, needs_main_gpu
from swarmesh.engines.process_engine import environment
from swarmesh.wire.spec import Backend, WorkerSpec

BINARY: Final = "llama-server"
POOLING_NAMES: Final = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
SETTINGS: Final = {"LLAMA_ARG_CACHE_RAM": "0", "LLAMA_ARG_UI": "0", "LLAMA_ARG_LOG_VERBOSITY": "1"}
"""Settings that older binaries lack, which as arguments would keep them from starting: no cache of old prompts beside
the slots (gigabytes that nobody promised to it), no web page, nothing but errors in the log."""
LOOK_INTERVAL_S: Final = 0.05
LIST_TIMEOUT_S: Final = 20.0


class LlamaServerProgram:
    """See `swarmesh.engines.process_engine.EngineProgram`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._backend = Backend.CPU
        self._http: LlamaClient | None = None

    def connect(self, door: EngineDoor) -> LlamaClient:
        """See `EngineProgram`."""
        self._http = LlamaClient(door)
        return self._http

    async def launch(self, key: str, log: BoundedLog) -> EngineProcess:
        """See `EngineProgram`."""
        require_model(self._spec.model_path)
        binary = find_binary(self._spec.llama_server_path)
        settings = environment({**SETTINGS, **llama_environment(self._spec), "LLAMA_API_KEY": key})
        self._backend = choose_backend(self._spec.backend, await _devices(binary, settings))
        argv = [sys.executable, "-m", "swarmesh.engines.tether", str(os.getpid()), binary, *self._arguments()]
        return await EngineProcess.spawn(argv, log, stdin=b"", environment=settings)

    async def serving(self, process: EngineProcess) -> EngineInfo | None:
        """See `EngineProgram`."""
        assert self._http is not None, "a program is connected before it is launched"
        # The binary reports nothing by itself, so it is asked until it answers or ends.
        while not process.exited:
            if await self._http.ready(LIST_TIMEOUT_S):
                return await self._http.introduce(self._spec, self._backend, process.pid)
            await asyncio.sleep(LOOK_INTERVAL_S)
        return None

    def _arguments(self) -> list[str]:
        spec = self._spec
        pooling = declared_pooling(spec.model_path)
        arguments = ["--model", spec.model_path, "--alias", spec.modelcell, "--host", spec.engine_socket_path]
        arguments += ["--parallel", str(spec.slots), "--ctx-size", str(spec.slots * spec.context_tokens)]
        arguments += ["--slots", "--embeddings", "--pooling", POOLING_NAMES.get(pooling or 0, "mean")]
        arguments += [
            "--ubatch-size",
            str(batch_tokens(spec, pooling)),
            "--batch-size",
            str(batch_tokens(spec, pooling)),
        ]
        if spec.threads:
            arguments += ["--threads", str(spec.threads)]
        if self._backend is Backend.CPU:
            arguments += ["--n-gpu-layers", "0"]
        elif needs_main_gpu(spec):
            arguments += ["--main-gpu", str(spec.gpu), "--split-mode", "none"]
        return arguments


def find_binary(path: str) -> str:
    """The binary that was named, else the one on the PATH.

    Raises:
        EngineStartError: There is none.
    """
    found = shutil.which(path or BINARY)
    if found is None:
        raise EngineStartError(
            f"{path or BINARY} is no program that can be run",
            hint="Set 'llama_server' under [rustbee] in swarmesh.toml to the path of the binary, or leave it empty for "
            "the built-in engine.",
        )
    return str(Path(found).absolute())


async def _devices(binary: str, environment: dict[str, str]) -> list[str]:
    # Lines such as "  CUDA0: NVIDIA H200 (143771 MiB, 143000 MiB free)".
    process = await asyncio.create_subprocess_exec(
        binary,
        "--list-devices",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        async with asyncio.timeout(LIST_TIMEOUT_S):
            answer, _ = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise EngineStartError(f"{binary} did not list its devices within {LIST_TIMEOUT_S:g} s") from error
    return [line.strip().partition(":")[0] for line in answer.decode("utf-8", "replace").splitlines()]
