"""From what is asked for, and what a host has, to what its agent is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmesh.config.settings import RustbeeSettings
from swarmesh.core.errors import ConfigError, InvalidValueError, NotEnoughMemoryError
from swarmesh.hosts.host import GpuFacts, HostFacts, HostLayout
from swarmesh.models.catalog import Catalog
from swarmesh.models.demo import DEMO_GGUF
from swarmesh.models.gguf import read_model
from swarmesh.queen.spawning import ModelOnOffer, Plan, offered_here, plan_worker
from swarmesh.wire.spec import Backend, EngineKind
from swarmesh.wire.views import SpawnRequest

LAYOUT = HostLayout(root="/far/hive", workers_dir="/far/hive/rustbees", sockets_dir="/far/run", queen_file="/far/queen")
MAC = HostFacts(name="mac", total_mib=16_384, available_mib=8_000, cpu_cores=8, layout=LAYOUT)
RTX = GpuFacts(0, "RTX", Backend.CUDA, 24_000, 20_000)
OLD = GpuFacts(1, "GTX", Backend.CUDA, 8_000, 7_000)


def facts(**changes: Any) -> HostFacts:
    return msgspec.structs.replace(MAC, **changes)


def demo() -> ModelOnOffer:
    header = read_model(DEMO_GGUF)
    return ModelOnOffer(None, header)


def plan(host: HostFacts = MAC, model: ModelOnOffer | None = None, **asked: Any) -> Plan:
    request = SpawnRequest(modelcell="demo", **asked)
    return plan_worker(
        request, model or demo(), host, RustbeeSettings(threads=3), worker_id="rustbee-1", host="mac", key="k"
    )


def test_everything_lies_where_the_host_says() -> None:
    spec = plan().spec
    assert (spec.socket_path, spec.engine_socket_path) == ("/far/run/rustbee-1.sock", "/far/run/rustbee-1.engine.sock")
    assert (spec.work_dir, spec.queen_file, spec.host) == ("/far/hive/rustbees/rustbee-1", "/far/queen", "mac")
    assert (spec.engine, spec.model_path, spec.threads) == (EngineKind.LLAMA_CPP, "", 3)


def test_what_is_reserved_is_remembered_with_the_worker() -> None:
    made = plan()
    assert made.need_mib == made.spec.reserved_mib > 50
    assert made.gpus == ()
    assert plan(cellalloc=77).spec.reserved_mib == 77


def test_the_owner_of_the_host_decides_about_its_threads() -> None:
    assert plan(facts(threads=6)).spec.threads == 6


def test_a_model_too_large_for_the_host_is_refused_with_the_numbers() -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"needs [\d,]+ MiB .* 20 MiB available of 16,384 MiB"):
        plan(facts(available_mib=20))


@pytest.mark.parametrize(
    ("host", "asked", "engine", "backend", "gpus"),
    [
        (facts(gpus=(RTX,)), {}, EngineKind.LLAMA_CPP, Backend.AUTO, ()),
        (facts(gpus=(RTX, OLD), llama_server="/l"), {}, EngineKind.LLAMA_SERVER, Backend.CUDA, (0, 1)),
        (facts(gpus=(RTX, OLD), llama_server="/l"), {"gpu": 1}, EngineKind.LLAMA_SERVER, Backend.CUDA, (1,)),
        (facts(gpus=(RTX,), llama_server="/l"), {"type": Backend.CPU}, EngineKind.LLAMA_CPP, Backend.CPU, ()),
        (
            facts(gpus=(RTX,), llama_server="/l"),
            {"type": Backend.VULKAN},
            EngineKind.LLAMA_SERVER,
            Backend.VULKAN,
            (0,),
        ),
        (facts(llama_server="/l"), {"type": Backend.VULKAN}, EngineKind.LLAMA_SERVER, Backend.VULKAN, ()),
        (facts(llama_server="/l", llama_server_set="/l"), {}, EngineKind.LLAMA_SERVER, Backend.AUTO, ()),
        (
            facts(gpus=(GpuFacts(0, "Apple GPU", Backend.METAL, 16_384, 8_000),)),
            {"type": Backend.METAL},
            EngineKind.LLAMA_CPP,
            Backend.METAL,
            (),
        ),
    ],
)
def test_engine_backend_and_memory_follow_from_what_the_host_has(
    host: HostFacts, asked: dict[str, Any], engine: EngineKind, backend: Backend, gpus: tuple[int, ...]
) -> None:
    made = plan(host, **asked)
    assert (made.spec.engine, made.spec.backend, made.gpus) == (engine, backend, gpus)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(InvalidValueError, match="mac has no cuda GPU 5; of GPUs it has cuda GPU 0"):
        plan(facts(gpus=(RTX,), llama_server="/l"), type=Backend.CUDA, gpu=5)


def test_a_host_is_known_not_to_offer_what_it_lacks() -> None:
    assert plan(facts(gpus=(RTX,)), type=Backend.CUDA).offered
    assert not plan(MAC, type=Backend.ROCM).offered, "its tool may be missing"
    assert plan(MAC).offered


@pytest.mark.parametrize("asked", [{"type": Backend.CUDA}, {"type": Backend.METAL}, {"gpu": 3}])
def test_what_is_known_to_be_missing_is_refused_before_anything_starts(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=r"mac has no .*GPU.*; of GPUs it has none"):
        plan(MAC, **asked)


def test_a_llama_server_that_was_set_and_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"'/gone', and no such program can be run on mac"):
        plan(facts(llama_server_set="/gone"))


def test_this_machines_catalog_knows_where_its_files_lie(tmp_path: Path) -> None:
    offered = offered_here(Catalog(tmp_path), SpawnRequest(modelcell="demo"))
    assert offered.path == str(DEMO_GGUF)
    assert plan(model=offered).spec.model_path == str(DEMO_GGUF)
    assert offered_here(Catalog(tmp_path), SpawnRequest(modelcell="x", class_path="fake")) == ModelOnOffer(None)
