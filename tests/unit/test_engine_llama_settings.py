"""What a llama.cpp server is started with."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rustbee_rig import make_spec
from swarmesh.config.home import Home
from swarmesh.core.errors import EngineStartError
from swarmesh.engines.gguf_keys import declared_pooling, has_chat_template, require_model
from swarmesh.engines.llama_batch import batch_tokens
from swarmesh.engines.llama_devices import choose_backend, llama_environment, needs_main_gpu
from swarmesh.wire.spec import Backend

HOME = Home(Path("/nowhere"))


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5, 7, 16, 100])
def test_a_batch_is_shared_evenly_among_the_slots(slots: int) -> None:
    batch = batch_tokens(make_spec(HOME, slots=slots), None)
    assert batch % slots == 0
    assert 512 <= batch < 512 + slots


def test_an_embedding_model_takes_a_whole_text_in_one_batch() -> None:
    assert batch_tokens(make_spec(HOME, slots=4, context_tokens=1024), 1) == 1024
    assert batch_tokens(make_spec(HOME, slots=4, context_tokens=256), 1) == 512
    assert batch_tokens(make_spec(HOME, slots=1, context_tokens=100_000), 2) == 2048


def test_the_backend_is_what_is_there() -> None:
    assert choose_backend(Backend.AUTO, ["CPU"]) is Backend.CPU
    assert choose_backend(Backend.AUTO, ["CPU", "CUDA0", "CUDA1"]) is Backend.CUDA
    assert choose_backend(Backend.CPU, ["CUDA0"]) is Backend.CPU
    assert choose_backend(Backend.METAL, ["MTL0"]) is Backend.METAL
    with pytest.raises(EngineStartError, match=r"no rocm device .*finds: vulkan"):
        choose_backend(Backend.ROCM, ["Vulkan0", "CPU"])


def test_one_gpu_is_the_only_one_the_engine_sees() -> None:
    assert llama_environment(make_spec(HOME, gpu=1, backend=Backend.CUDA))["CUDA_VISIBLE_DEVICES"] == "1"
    assert llama_environment(make_spec(HOME, gpu=0, backend=Backend.ROCM))["HIP_VISIBLE_DEVICES"] == "0"
    assert not any("VISIBLE" in name for name in llama_environment(make_spec(HOME, gpu=1)))
    assert needs_main_gpu(make_spec(HOME, gpu=1))
    assert not needs_main_gpu(make_spec(HOME, gpu=1, backend=Backend.CUDA))
    assert not needs_main_gpu(make_spec(HOME))


def test_two_facts_are_found_in_a_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF....bert.pooling_type" + struct.pack("<II", 4, 2) + b"rest")
    assert declared_pooling(str(path)) == 2
    assert not has_chat_template(str(path))
    path.write_bytes(b"GGUF....tokenizer.chat_template")
    assert declared_pooling(str(path)) is None
    assert has_chat_template(str(path))
    path.write_bytes(b"")
    assert not has_chat_template(str(path))
    path.write_bytes(b"x.pooling_type\x04")
    assert declared_pooling(str(path)) is None


def test_a_model_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="none was named"):
        require_model("")
    with pytest.raises(EngineStartError, match="does not exist"):
        require_model(str(tmp_path))
