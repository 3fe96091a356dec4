"""What a worker is told when it is started: JSON on its standard input, because it holds a secret."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class EngineKind(StrEnum):
    """Which engine a worker runs."""

    LLAMA_CPP = "llama_cpp"
    """llama.cpp's server inside a Python child process (the xllamacpp wheel)."""
    LLAMA_SERVER = "llama_server"
    """A llama-server binary the user has."""
    PYTHON_CLASS = "python_class"
    """The user's own ``module:Class``."""
    FAKE = "fake"
    """Deterministic text without a model, for tests of everything around an engine."""


class Backend(StrEnum):
    """What a worker computes on (R-02)."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    METAL = "metal"
    ROCM = "rocm"
    VULKAN = "vulkan"
    PYTHON = "python"
    OPENAI = "openai"


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one agent needs to run its engine and to find its queen.

    Attributes:
        rustbee_id: The worker's name for as long as it lives.
        modelcell: The name its model is asked for by.
        backend: What was asked for; the agent reports what it got.
        model_path: Absolute path of a GGUF file, for the llama.cpp engines.
        class_path: ``module:Class``, for ``python_class``.
        python_path: Directories put on ``sys.path`` of a ``python_class`` engine.
        gpu: Index of the only GPU it may use; None leaves the choice to the engine.
        slots: Tasks that may run at once.
        context_tokens: Longest prompt plus answer of one slot.
        cellalloc_mib: Memory promised to it; 0 when the estimate was taken.
        socket_path: Unix socket the agent listens on (mode 0600, in a directory of mode 0700).
        engine_socket_path: Unix socket of its engine.
        work_dir: Directory of its logs and state.
        key: Secret that the queen shows to the agent and the agent to the queen.
        queen_file: File that says where the queen listens now; read again whenever she is not found.
        orphan_ttl_s: After so long without a queen the worker stops and frees its memory.
        llama_server_path: Binary for ``llama_server``.
        threads: CPU threads of the engine; 0 leaves the choice to it.
        reserved_mib: What the queen has reserved for it, ``cellalloc_mib`` or the estimate: hers to remember.
        reserved_gpus: The GPUs it is reserved on; none for main memory.
    """

    rustbee_id: str
    modelcell: str
    backend: Backend
    engine: EngineKind
    host: str
    socket_path: str
    engine_socket_path: str
    work_dir: str
    key: str
    queen_file: str
    model_path: str = ""
    class_path: str = ""
    python_path: tuple[str, ...] = ()
    gpu: int | None = None
    slots: int = 4
    context_tokens: int = 2048
    cellalloc_mib: int = 0
    orphan_ttl_s: float = 900.0
    llama_server_path: str = ""
    threads: int = 0
    reserved_mib: int = 0
    reserved_gpus: tuple[int, ...] = ()
