"""Estimates beside what llama.cpp allocated, and what a person is told when a model does not fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gguf_writer import llama, write
from swarmesh.core.errors import InvalidValueError, NotEnoughMemoryError
from swarmesh.models.gguf import GgufHeader, Pooling, read_model, sliding_by_period
from swarmesh.models.memory_estimate import PROCESS_MIB, check_fit, estimate

MIB = 1024 * 1024


def header(**changes: object) -> GgufHeader:
    """A small llama: 8 blocks of width 512, 8 heads of 64 with 4 key-value heads, a vocabulary of 32,000."""
    blocks = changes.get("block_count", 8)
    assert isinstance(blocks, int)
    plain = GgufHeader(
        path="/m.gguf",
        version=3,
        size_bytes=116 * MIB,
        weights_bytes=115_902_464,
        tensor_count=75,
        parameters=57_942_528,
        kind="model",
        architecture="llama",
        name="",
        quantization="F16",
        tokenizer="llama",
        vocab_size=32_000,
        has_chat_template=False,
        pooling=None,
        context_length=131_072,
        block_count=8,
        embedding_length=512,
        feed_forward_length=1536,
        expert_feed_forward_length=0,
        expert_used_count=0,
        head_count=8,
        kv_head_counts=(4,) * blocks,
        key_length=64,
        value_length=64,
        swa_key_length=64,
        swa_value_length=64,
        sliding_window=0,
        sliding_blocks=None,
        shared_kv_blocks=0,
        recurrent_state_values=0,
        split_part=0,
        split_parts=1,
    )
    return msgspec.structs.replace(plain, **changes)


LLAMA = header()
GEMMA2 = header(
    architecture="gemma2",
    feed_forward_length=2048,
    head_count=4,
    kv_head_counts=(2,) * 8,
    key_length=256,
    value_length=256,
    swa_key_length=256,
    swa_value_length=256,
    sliding_window=1024,
)
GEMMA3 = msgspec.structs.replace(
    GEMMA2, architecture="gemma3", block_count=12, kv_head_counts=(1,) * 12, sliding_window=512
)
QWEN3 = header(
    architecture="qwen3",
    block_count=6,
    head_count=16,
    kv_head_counts=(8,) * 6,
    key_length=128,
    value_length=128,
)
EXPERTS = header(
    architecture="qwen3moe",
    block_count=4,
    feed_forward_length=2048,
    expert_feed_forward_length=512,
    expert_used_count=8,
    kv_head_counts=(4,) * 4,
)
EMBEDDER = msgspec.structs.replace(QWEN3, pooling=Pooling.LAST)

# What llama.cpp logged for models of these shapes with random weights: cache MiB, compute and output buffers MiB.
MEASURED = [
    (LLAMA, 2048, 4, "f16", 64.0, 16.51),
    (LLAMA, 8192, 1, "f16", 64.0, 22.14),
    (LLAMA, 8192, 4, "f16", 256.0, 22.51),
    (LLAMA, 512, 16, "f16", 64.0, 16.47),
    (LLAMA, 334, 3, "f16", 12.0, 14.92),
    (LLAMA, 2048, 4, "q8_0", 34.0, 16.54),
    (GEMMA2, 8192, 4, "f16", 304.0, 27.02),
    (GEMMA3, 32_768, 2, "f16", 148.0, 50.27),
    (GEMMA3, 512, 2, "f16", 12.0, 18.27),
    (QWEN3, 4096, 2, "f16", 192.0, 19.26),
    (EMBEDDER, 4096, 2, "f16", 192.0, 71.77),
    (EXPERTS, 2048, 4, "f16", 32.0, 31.51),
]


@pytest.mark.parametrize(("model", "context_tokens", "slots", "kv_type", "cache_mib", "compute_mib"), MEASURED)
def test_against_what_llama_cpp_allocates(
    model: GgufHeader, context_tokens: int, slots: int, kv_type: str, cache_mib: float, compute_mib: float
) -> None:
    need = estimate(model, context_tokens=context_tokens, slots=slots, kv_type=kv_type)
    assert need.kv_cache_mib == cache_mib
    # llama.cpp allocates its copy of a batch's outputs only with the first embedding, after this was measured.
    later_mib = 4 * 512 * model.vocab_size / MIB if model.is_embedding else 0
    assert compute_mib <= need.compute_mib - later_mib <= 1.3 * compute_mib + 1


def test_the_total_is_the_sum_of_its_parts() -> None:
    need = estimate(LLAMA, context_tokens=2048, slots=4, prompt_cache_mib=100)
    assert need.weights_mib == 111
    assert need.process_mib == PROCESS_MIB
    assert need.total_mib == 111 + 64 + need.compute_mib + PROCESS_MIB + 100


def test_context_is_per_slot_and_rounded_up() -> None:
    need = estimate(LLAMA, context_tokens=1000, slots=3)
    assert (need.context_tokens, need.slots, need.total_context_tokens) == (1000, 3, 3 * 1024)


def test_blocks_without_heads_keep_no_cache() -> None:
    half = header(kv_head_counts=(4, 0) * 4)
    whole = estimate(LLAMA, context_tokens=2048, slots=4)
    assert estimate(half, context_tokens=2048, slots=4).kv_cache_mib == whole.kv_cache_mib / 2


def test_blocks_that_share_a_cache_have_none_of_their_own() -> None:
    shared = header(shared_kv_blocks=6)
    assert estimate(shared, context_tokens=2048, slots=4).kv_cache_mib == 64 * 2 / 8


def test_a_pattern_in_the_file_wins() -> None:
    all_slide = header(sliding_window=256, sliding_blocks=sliding_by_period(0, 8))
    need = estimate(all_slide, context_tokens=8192, slots=1)
    assert need.kv_cache_mib == 64 * (256 + 512) // 8192


def test_a_window_without_a_known_pattern_counts_in_full() -> None:
    unknown = header(architecture="phi3", sliding_window=256)
    assert estimate(unknown, context_tokens=8192, slots=1).kv_cache_mib == 64


def test_a_state_space_model_has_a_state_in_place_of_a_cache() -> None:
    mamba = header(kv_head_counts=(0,) * 8, head_count=0, key_length=0, value_length=0, recurrent_state_values=MIB)
    short = estimate(mamba, context_tokens=256, slots=2)
    assert short.kv_cache_mib == 8 * 2 * 4
    assert estimate(mamba, context_tokens=8192, slots=2).kv_cache_mib == short.kv_cache_mib


def test_embeddings_switched_on_make_room_for_a_batch_of_logits() -> None:
    off = estimate(LLAMA, context_tokens=2048, slots=4)
    on = estimate(LLAMA, context_tokens=2048, slots=4, embeddings=True)
    assert on.compute_mib - off.compute_mib == pytest.approx(2 * 62.5, abs=1)


def test_a_file_that_says_little_is_still_estimated(tmp_path: Path) -> None:
    model = llama()
    model.keys = {"general.architecture": model.keys["general.architecture"]}
    need = estimate(read_model(write(tmp_path / "m.gguf", model)), context_tokens=4096, slots=4)
    assert (need.weights_mib, need.kv_cache_mib) == (1, 0)


@pytest.mark.parametrize(
    ("context_tokens", "slots", "kv_type", "param"),
    [
        (0, 1, "f16", "context"),
        (-5, 1, "f16", "context"),
        (10**9, 1, "f16", "context"),
        (1, 0, "f16", "slots"),
        (1, 10**6, "f16", "slots"),
        (1, 1, "q9", "kv_type"),
    ],
)
def test_senseless_numbers_are_refused(context_tokens: int, slots: int, kv_type: str, param: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        estimate(LLAMA, context_tokens=context_tokens, slots=slots, kv_type=kv_type)
    assert caught.value.param == param


def test_a_model_that_fits_passes() -> None:
    need = estimate(LLAMA, context_tokens=2048, slots=4)
    check_fit(need, available_mib=need.total_mib, total_mib=need.total_mib, model_name="m")


def refusal(context_tokens: int, slots: int, available_mib: int, total_mib: int) -> NotEnoughMemoryError:
    need = estimate(LLAMA, context_tokens=context_tokens, slots=slots)
    with pytest.raises(NotEnoughMemoryError) as caught:
        check_fit(need, available_mib=available_mib, total_mib=total_mib, model_name="big")
    return caught.value


def test_a_refusal_says_need_and_have() -> None:
    error = refusal(32_768, 4, available_mib=500, total_mib=1000)
    assert "'big' needs 1,262 MiB (weights 111 + 4 slots of 32,768 tokens 1,024 + compute" in error.message
    assert "has 500 MiB available of 1,000 MiB" in error.message
    assert (error.code, error.status) == ("not_enough_memory", 409)


def test_the_context_and_slots_it_names_do_fit() -> None:
    error = refusal(32_768, 4, available_mib=600, total_mib=1000)
    assert "a context of 11,520 tokens, or 1 slot, or a smaller quantisation" in error.hint
    assert "a host with more memory" in error.hint
    for context_tokens, slots in ((11_520, 4), (32_768, 1)):
        need = estimate(LLAMA, context_tokens=context_tokens, slots=slots)
        check_fit(need, available_mib=600, total_mib=1000, model_name="big")


def test_a_host_that_is_only_busy_is_named_as_such() -> None:
    assert "stopping something else on this host" in refusal(2048, 4, available_mib=200, total_mib=4000).hint


def test_weights_that_are_too_large_need_a_smaller_model() -> None:
    hint = refusal(2048, 4, available_mib=50, total_mib=60).hint
    assert hint == "What would help: a smaller quantisation or model, or a host with more memory."
