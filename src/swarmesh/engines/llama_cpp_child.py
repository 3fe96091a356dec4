"""``python -m swarmesh.engines.llama_cpp_child``: holds llama.cpp's server for one model until its agent ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import psutil
import xllamacpp

from swarmesh.core.errors import EngineStartError
from swarmesh.engines.child import ChildChannel, ChildReport
from swarmesh.engines.gguf_keys import declared_pooling
from swarmesh.engines.llama_batch import batch_tokens
from swarmesh.engines.llama_devices import choose_backend, needs_main_gpu
from swarmesh.wire.spec import Backend, WorkerSpec

SMALL_MODEL_BYTES: Final = 64 * 1024 * 1024
"""Below this a second thread costs more than it brings: threads meet after every layer, spinning while they wait."""
HTTP_THREADS_SPARE: Final = 24
"""Each open stream holds one of the server's threads; these are for health, slots, templates and requests in line."""
LOG_ERRORS: Final = 1
POOLING_MEAN: Final = 1


def main() -> None:
    """Serve."""
    channel = ChildChannel()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    spec = channel.order.spec
    try:
        backend = choose_backend(spec.backend, [device["name"] for device in xllamacpp.get_device_info()])
    except EngineStartError as error:
        sys.exit(f"{error.message}. {error.hint}")
    try:
        server = xllamacpp.Server(parameters(spec, backend, channel.order.engine_key))
    except RuntimeError as error:
        sys.exit(f"llama.cpp: {error}")  # Its own log says why; a traceback of ours would push that out of the end.
    channel.report(ChildReport(spec.slots, spec.context_tokens, backend))
    channel.end_with_agent().join()
    del server


def parameters(spec: WorkerSpec, backend: Backend, key: str) -> Any:
    """llama.cpp's own parameters for a worker."""
    params = xllamacpp.CommonParams()
    params.model.path = spec.model_path
    params.model_alias = {spec.modelcell}
    params.hostnames = [spec.engine_socket_path]
    params.api_keys = [key]
    params.n_parallel = spec.slots
    params.n_ctx = spec.slots * spec.context_tokens
    params.n_threads_http = spec.slots + HTTP_THREADS_SPARE
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec.threads or _threads(Path(spec.model_path))
    # The server would keep up to 8 GiB of old prompts beside its slots, memory that nobody promised to it.
    params.cache_ram_mib = 0
    params.endpoint_slots = True
    params.ui = False
    params.verbosity = LOG_ERRORS
    _choose_device(params, spec, backend)
    _allow_embeddings(params, spec)
    return params


def _choose_device(params: Any, spec: WorkerSpec, backend: Backend) -> None:
    if backend is Backend.CPU:
        params.n_gpu_layers = 0
        params.fit_params = False  # It would load the model twice to measure GPUs that are not used.
    elif needs_main_gpu(spec):
        params.main_gpu = spec.gpu
        params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE


def _allow_embeddings(params: Any, spec: WorkerSpec) -> None:
    # With a pooling named, one server answers chats and embeddings alike; a chat model declares none, and the mean
    # of its tokens is what can be had from it.
    pooling = declared_pooling(spec.model_path)
    params.embedding = True
    params.pooling_type = POOLING_MEAN if pooling is None else pooling
    params.n_ubatch = params.n_batch = batch_tokens(spec, pooling)


def _threads(model: Path) -> int:
    if model.stat().st_size < SMALL_MODEL_BYTES:
        return 1
    # One core is left to the agent, the queen and everybody else: a thread that has to wait for a core stalls all
    # the others at the end of every layer.
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, cores - 1)


if __name__ == "__main__":
    main()
