"""From what somebody asks for to what an agent is told: which engine, which file, how much memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from swarmesh.config.home import Home
from swarmesh.config.settings import Settings
from swarmesh.config.worker_key import worker_key, worker_secret
from swarmesh.core.errors import ConfigError, InvalidValueError
from swarmesh.engines.llama_batch import BATCH_TOKENS, EMBEDDING_BATCH_TOKENS_MAX
from swarmesh.models.catalog import Catalog
from swarmesh.models.gguf import GgufHeader, read_model
from swarmesh.models.memory_estimate import check_fit, estimate
from swarmesh.models.modelcell import Modelcell, ModelKind
from swarmesh.wire.spec import Backend, EngineKind, WorkerSpec
from swarmesh.wire.views import SpawnRequest

LOCAL_HOST: Final = "localhost"
PYTHON_WORKER_MIB: Final = 128
"""What a python_class worker is reserved when nobody says how much its class needs."""
FAKE_CLASS: Final = "fake"
"""Class path that asks for the deterministic engine without a model, for tests of everything around an engine."""

SLOT_CHOICES: Final = (16, 8, 4)
CHEAP_KV_CACHE_MIB: Final = 512
"""What the slots of a model may take for their contexts when nobody says how many there should be."""

_GPU_BACKENDS = frozenset({Backend.CUDA, Backend.METAL, Backend.ROCM, Backend.VULKAN})


def worker_spec(home: Home, settings: Settings, request: SpawnRequest, worker_id: str) -> WorkerSpec:
    """Everything the agent is told.

    Raises:
        ModelNotFoundError: The catalog has no such modelcell.
        ModelFileError: Its file is missing, truncated or no GGUF.
        ConfigError: The llama-server that is set does not exist.
        InvalidValueError: What is asked for does not go together.
    """
    cell = None if request.class_path else Catalog(home.root).get(request.modelcell)
    engine = _engine(settings, request, cell)
    context_tokens = request.context or settings.rustbee.context_tokens
    slots = request.slots or settings.rustbee.slots
    model_path = ""
    if engine in {EngineKind.LLAMA_CPP, EngineKind.LLAMA_SERVER}:
        assert cell is not None, "only class paths come without a modelcell"
        header = read_model(Path(cell.target))
        model_path = str(header.path)
        if header.context_length:
            context_tokens = min(context_tokens, header.context_length)
        slots = slots or _cheap_slots(header, context_tokens)
    return WorkerSpec(
        rustbee_id=worker_id,
        modelcell=request.modelcell,
        backend=Backend.PYTHON if engine in {EngineKind.PYTHON_CLASS, EngineKind.FAKE} else request.type,
        engine=engine,
        host=LOCAL_HOST,
        socket_path=str(home.sockets_dir / f"{worker_id}.sock"),
        engine_socket_path=str(home.sockets_dir / f"{worker_id}.engine.sock"),
        work_dir=str(home.worker_dir(worker_id)),
        key=worker_key(worker_secret(home), worker_id),
        queen_file=str(home.queen_file),
        model_path=model_path,
        class_path=_class_path(engine, request, cell),
        python_path=(request.python_path,) if request.python_path else (),
        gpu=request.gpu,
        slots=slots or min(SLOT_CHOICES),
        context_tokens=context_tokens,
        cellalloc_mib=request.cellalloc or 0,
        orphan_ttl_s=settings.rustbee.orphan_ttl_s,
        llama_server_path=_llama_server(settings) if engine is EngineKind.LLAMA_SERVER else "",
        threads=settings.rustbee.threads,
    )


def need_mib(spec: WorkerSpec, *, available_mib: int, total_mib: int) -> int:
    """Memory to reserve for a worker: what was asked for, else the estimate from its model file.

    Raises:
        ModelFileError: The file cannot be read.
        NotEnoughMemoryError: The estimate is more than the host has free now; says what would fit.
    """
    if spec.cellalloc_mib:
        return spec.cellalloc_mib
    if not spec.model_path:
        return PYTHON_WORKER_MIB
    header = read_model(Path(spec.model_path))
    # Every model answers /v1/embeddings as well, which costs the engine a batch of outputs; a model made for
    # embeddings takes a text in one batch, so its batches are as wide as its context.
    batch_tokens = min(max(spec.context_tokens, BATCH_TOKENS), EMBEDDING_BATCH_TOKENS_MAX)
    need = estimate(
        header,
        context_tokens=spec.context_tokens,
        slots=spec.slots,
        embeddings=True,
        batch_tokens=batch_tokens if header.pooling is not None else BATCH_TOKENS,
    )
    check_fit(need, available_mib=available_mib, total_mib=total_mib, model_name=spec.modelcell)
    return need.total_mib


def _class_path(engine: EngineKind, request: SpawnRequest, cell: Modelcell | None) -> str:
    if engine is EngineKind.FAKE:
        return request.class_path.removeprefix(FAKE_CLASS).removeprefix(":")
    if cell is not None and cell.kind is ModelKind.PYTHON_CLASS:
        return cell.target
    return request.class_path


def _cheap_slots(header: GgufHeader, context_tokens: int) -> int:
    for slots in SLOT_CHOICES:
        if estimate(header, context_tokens=context_tokens, slots=slots).kv_cache_mib <= CHEAP_KV_CACHE_MIB:
            return slots
    return min(SLOT_CHOICES)


def _engine(settings: Settings, request: SpawnRequest, cell: Modelcell | None) -> EngineKind:
    if request.class_path == FAKE_CLASS or request.class_path.startswith(f"{FAKE_CLASS}:"):
        return EngineKind.FAKE
    if request.class_path or (cell is not None and cell.kind is ModelKind.PYTHON_CLASS):
        return EngineKind.PYTHON_CLASS
    if request.type is Backend.PYTHON:
        raise InvalidValueError(
            f"type python needs a class, and {request.modelcell!r} is none",
            hint="Add --class module:Class, and --python-path for where the module lies.",
            param="class_path",
        )
    if cell is not None and cell.kind is ModelKind.REMOTE:
        raise InvalidValueError(
            f"{request.modelcell!r} is served by {cell.target}",
            hint=f"Adopt it: swarmesh spawn rustbee --type openai --url {cell.target} --modelcell {request.modelcell}",
        )
    # The built-in wheel computes on the CPU; a GPU needs the llama-server its owner has built or installed.
    wants_binary = bool(settings.rustbee.llama_server) or (request.type in _GPU_BACKENDS and _on_path())
    return EngineKind.LLAMA_SERVER if wants_binary else EngineKind.LLAMA_CPP


def _llama_server(settings: Settings) -> str:
    named = settings.rustbee.llama_server
    path = shutil.which(Path(named).expanduser()) if named else _on_path()
    if path is None:
        raise ConfigError(
            f"rustbee.llama_server is {named!r}, and no such program can be run", hint="Correct swarmesh.toml."
        )
    return path


def _on_path() -> str | None:
    return shutil.which("llama-server")
