"""What llama.cpp calls its devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from swarmesh.core.errors import EngineStartError
from swarmesh.wire.spec import Backend, WorkerSpec

PREFIXES: Final = (
    ("CUDA", Backend.CUDA),
    ("ROCm", Backend.ROCM),
    ("HIP", Backend.ROCM),
    ("Vulkan", Backend.VULKAN),
    ("Metal", Backend.METAL),
    ("MTL", Backend.METAL),
)

VISIBLE_GPUS: Final = {
    Backend.CUDA: "CUDA_VISIBLE_DEVICES",
    Backend.ROCM: "HIP_VISIBLE_DEVICES",
    Backend.VULKAN: "GGML_VK_VISIBLE_DEVICES",
}
"""Variables that hide all GPUs but one from a process. Where there is none, llama.cpp is told its main GPU."""


def llama_environment(spec: WorkerSpec) -> dict[str, str]:
    """What the engine's environment needs: only the GPU it may use is seen, and a crash is quick.

    Where gdb is installed, llama.cpp otherwise has it print a backtrace first, for seconds, over its own last words.
    """
    variable = VISIBLE_GPUS.get(spec.backend)
    gpu = {variable: str(spec.gpu)} if variable is not None and spec.gpu is not None else {}
    return {"GGML_NO_BACKTRACE": "1", **gpu}


def needs_main_gpu(spec: WorkerSpec) -> bool:
    """Whether one GPU was asked for that no variable singles out."""
    return spec.gpu is not None and spec.backend not in VISIBLE_GPUS


def backend_of(device: str) -> Backend | None:
    """The backend of a device by its name, such as ``CUDA0``; None for what is no GPU."""
    return next((backend for prefix, backend in PREFIXES if device.startswith(prefix)), None)


def choose_backend(wanted: Backend, devices: Iterable[str]) -> Backend:
    """What to compute on, given what was asked for and what is there.

    Raises:
        EngineStartError: What was asked for is not there. The CPU in its place would be a crawl.
    """
    found = [backend for device in devices if (backend := backend_of(device)) is not None]
    if wanted is Backend.AUTO:
        return found[0] if found else Backend.CPU
    if wanted is Backend.CPU or wanted in found:
        return wanted
    there = ", ".join(dict.fromkeys(found)) or "none"
    raise EngineStartError(
        f"this build of llama.cpp finds no {wanted} device (GPU backends it finds: {there})",
        hint=f"Install the {wanted} build of xllamacpp, or name a llama-server binary in swarmesh.toml; "
        "'--type cpu' runs without a GPU.",
    )
