"""From what somebody asks for to what an agent is told: which engine, which file, how much memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from swarmesh.config.settings import RustbeeSettings
from swarmesh.core.errors import ConfigError, InvalidValueError
from swarmesh.hosts.host import HostFacts
from swarmesh.models.catalog import Catalog
from swarmesh.models.gguf import GgufHeader, read_model
from swarmesh.models.memory_estimate import MemoryEstimate, check_fit, estimate
from swarmesh.models.modelcell import Modelcell, ModelKind
from swarmesh.queen.model_need import worker_estimate
from swarmesh.wire.spec import Backend, EngineKind, WorkerSpec
from swarmesh.wire.views import SpawnRequest

PYTHON_WORKER_MIB: Final = 128
"""What a python_class worker is reserved when nobody says how much its class needs."""
FAKE_CLASS: Final = "fake"
"""Class path that asks for the deterministic engine without a model, for tests of everything around an engine."""

OTHER_GPUS: Final = "; of GPUs it has "
"""In the words for a host that has not the GPU that was asked for: only another wish helps, not room."""

SLOT_CHOICES: Final = (16, 8, 4)
CHEAP_KV_CACHE_MIB: Final = 512
"""What the slots of a model may take for their contexts when nobody says how many there should be."""

ALWAYS_FOUND: Final = frozenset({Backend.CUDA, Backend.METAL})
"""GPUs that are seen wherever they can be used: by the driver's own library, and by the kind of machine. AMD's tool may
be missing beside a GPU that works, and Vulkan drives anything."""
GPU_BACKENDS: Final = frozenset({Backend.CUDA, Backend.METAL, Backend.ROCM, Backend.VULKAN})


class ModelOnOffer(msgspec.Struct, frozen=True):
    """What is known about a model before a worker of it is planned.

    Attributes:
        cell: Its entry in the catalog; None for a class that was named by the request.
        header: What its file says; None where there is no file.
        path: Where the file lies on the worker's host; empty while it is not there yet.
    """

    cell: Modelcell | None
    header: GgufHeader | None = None
    path: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What an agent will be told, and what it needs: MiB, in main memory or (``gpus``) on any of these GPUs.

    Attributes:
        offered: Whether the host is known to have what the worker is to compute on.
    """

    spec: WorkerSpec
    need_mib: int
    gpus: tuple[int, ...]
    offered: bool = True


def plan_worker(
    request: SpawnRequest,
    model: ModelOnOffer,
    facts: HostFacts,
    settings: RustbeeSettings,
    *,
    worker_id: str,
    host: str,
    key: str,
    must_fit: bool = True,
) -> Plan:
    """Everything the agent is told, and the memory to reserve for it.

    Without ``must_fit`` it is planned whatever is free now: the core may make room, and decides by her own books.

    Raises:
        ConfigError: The llama-server that is set on the host does not exist.
        InvalidValueError: What is asked for does not go together.
        NotEnoughMemoryError: The estimate is more than the host has free now (``must_fit``); says what would fit.
    """
    _must_offer(facts, request)
    spec = _worker_spec(request, model, facts, settings, worker_id=worker_id, host=host, key=key)
    gpus = _gpus(spec, facts)
    need = need_mib(spec, model.header)
    if isinstance(need, MemoryEstimate):
        available_mib, total_mib = _memory_of(facts, gpus)
        if must_fit:
            check_fit(need, available_mib=available_mib, total_mib=total_mib, model_name=spec.modelcell)
        need = need.total_mib
    offered = spec.backend not in GPU_BACKENDS or any(spec.backend in {g.backend, Backend.VULKAN} for g in facts.gpus)
    return Plan(msgspec.structs.replace(spec, reserved_mib=need), need, gpus, offered)


def offered_here(catalog: Catalog, request: SpawnRequest) -> ModelOnOffer:
    """What this machine's own catalog says about the model.

    Raises:
        ModelNotFoundError: The catalog has no such modelcell.
        ModelFileError: Its file is missing, truncated or no GGUF.
    """
    if request.class_path:
        return ModelOnOffer(None)
    cell = catalog.get(request.modelcell)
    if cell.kind is not ModelKind.GGUF:
        return ModelOnOffer(cell)
    header = read_model(Path(cell.target))
    return ModelOnOffer(cell, header, str(header.path))


def need_mib(spec: WorkerSpec, header: GgufHeader | None) -> int | MemoryEstimate:
    """What was asked for or is customary, in MiB; else the estimate from the model file."""
    if spec.cellalloc_mib:
        return spec.cellalloc_mib
    if header is None:
        return PYTHON_WORKER_MIB
    return worker_estimate(header, slots=spec.slots, context_tokens=spec.context_tokens)


def size_of_slots(header: GgufHeader, settings: RustbeeSettings, request: SpawnRequest) -> tuple[int, int]:
    """Slots, and tokens of context of each, that a worker of this model gets."""
    context_tokens = request.context or settings.context_tokens
    if header.context_length:
        context_tokens = min(context_tokens, header.context_length)
    return request.slots or settings.slots or _cheap_slots(header, context_tokens), context_tokens


def _worker_spec(
    request: SpawnRequest,
    model: ModelOnOffer,
    facts: HostFacts,
    settings: RustbeeSettings,
    *,
    worker_id: str,
    host: str,
    key: str,
) -> WorkerSpec:
    asked = _asked_type(request, facts)
    engine = _engine(facts, request, model.cell, asked)
    slots = request.slots or settings.slots or min(SLOT_CHOICES)
    context_tokens = request.context or settings.context_tokens
    if model.header is not None:
        slots, context_tokens = size_of_slots(model.header, settings, request)
    layout = facts.layout
    return WorkerSpec(
        rustbee_id=worker_id,
        modelcell=request.modelcell,
        backend=Backend.PYTHON if engine in {EngineKind.PYTHON_CLASS, EngineKind.FAKE} else asked,
        engine=engine,
        host=host,
        socket_path=f"{layout.sockets_dir}/{worker_id}.sock",
        engine_socket_path=f"{layout.sockets_dir}/{worker_id}.engine.sock",
        work_dir=f"{layout.workers_dir}/{worker_id}",
        key=key,
        queen_file=layout.queen_file,
        model_path=model.path,
        class_path=_class_path(engine, request, model.cell),
        python_path=(request.python_path,) if request.python_path else (),
        gpu=request.gpu,
        slots=slots,
        context_tokens=context_tokens,
        cellalloc_mib=request.cellalloc or 0,
        orphan_ttl_s=settings.orphan_ttl_s,
        llama_server_path=_llama_server(facts) if engine is EngineKind.LLAMA_SERVER else "",
        threads=facts.threads or settings.threads,
    )


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


def _asked_type(request: SpawnRequest, facts: HostFacts) -> Backend:
    # A GPU and a llama-server beside it are there to be used; the built-in engine finds only what its build knows.
    if request.type is not Backend.AUTO or request.class_path or not facts.gpus or not facts.llama_server:
        return request.type
    return facts.gpus[0].backend


def _engine(facts: HostFacts, request: SpawnRequest, cell: Modelcell | None, asked: Backend) -> EngineKind:
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
    wants_binary = bool(facts.llama_server_set) or (asked in GPU_BACKENDS and bool(facts.llama_server))
    return EngineKind.LLAMA_SERVER if wants_binary else EngineKind.LLAMA_CPP


def _llama_server(facts: HostFacts) -> str:
    if not facts.llama_server:
        raise ConfigError(
            f"rustbee.llama_server is {facts.llama_server_set!r}, and no such program can be run on {facts.name}",
            hint=f"Correct {facts.layout.root}/swarmesh.toml there.",
        )
    return facts.llama_server


def _gpus(spec: WorkerSpec, facts: HostFacts) -> tuple[int, ...]:
    """The GPUs whose memory the worker takes; none where it is the host's own (CPU, Apple) or nobody can measure it."""
    if spec.backend not in GPU_BACKENDS or spec.backend is Backend.METAL:
        return ()
    # Vulkan drives what the vendors' tools have found.
    there = tuple(gpu.index for gpu in facts.gpus if spec.backend in {gpu.backend, Backend.VULKAN})
    if spec.gpu is None or (not there and spec.backend not in ALWAYS_FOUND):
        return there
    if spec.gpu not in there:
        raise _no_gpu(facts, f"{spec.backend} GPU {spec.gpu}")
    return (spec.gpu,)


def _must_offer(facts: HostFacts, request: SpawnRequest) -> None:
    """Refuse what the engine would only find out when it starts."""
    if request.type in ALWAYS_FOUND and all(gpu.backend is not request.type for gpu in facts.gpus):
        raise _no_gpu(facts, f"{request.type} GPU")
    if request.gpu is not None and request.type in {Backend.AUTO, Backend.CPU} and not facts.gpus:
        raise _no_gpu(facts, f"GPU {request.gpu}")


def _no_gpu(facts: HostFacts, wanted: str) -> InvalidValueError:
    has = ", ".join(f"{gpu.backend} GPU {gpu.index}" for gpu in facts.gpus) or "none"
    return InvalidValueError(
        f"{facts.name} has no {wanted}{OTHER_GPUS}{has}",
        hint=f"'swarmesh hosts doctor {facts.name}' says what was looked for; --type auto takes what is there.",
        param="gpu",
    )


def _memory_of(facts: HostFacts, gpus: tuple[int, ...]) -> tuple[int, int]:
    if not gpus:
        return facts.available_mib, facts.total_mib
    used = [gpu for gpu in facts.gpus if gpu.index in gpus]
    return sum(gpu.free_mib for gpu in used), sum(gpu.total_mib for gpu in used)
