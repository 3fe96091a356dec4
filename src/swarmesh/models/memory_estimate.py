"""How much memory a model will take, from its header alone, so that one that cannot fit is refused early (R-26).

The formula follows how llama.cpp allocates, and was checked against the buffer sizes it logs:

- **weights**: the tensor data, as it lies in the file.
- **key-value cache**: for every block ``cells * slots * heads * (key length + value length)`` numbers of the
  cache's type. Cells are the context of one slot rounded up to 256; a sliding-window block has no more than
  its window and one batch. State-space blocks have a fixed 32-bit state per slot in its place.
- **compute**: the widest point of one batch through one block, in 32-bit floats, the attention mask (16 bits per
  cell and batch token), and the logits: one row per slot, and one per batch token when embeddings are wanted.
- **process**: what the engine's process takes beside all that; ``PROCESS_MIB``.

It errs on the high side where a file leaves room, and it does not know what a driver takes on a GPU.
"""

from __future__ import annotations

import msgspec

from swarmesh.core.errors import InvalidValueError, NotEnoughMemoryError
from swarmesh.models.ggml_types import TENSOR_TYPES, TensorType
from swarmesh.models.gguf import GgufHeader, sliding_by_period

CELL_STEP_TOKENS = 256
"""Context is allocated in steps of so many tokens."""

DEFAULT_BATCH_TOKENS = 512
"""Tokens that go through the model at once (llama.cpp's micro-batch)."""

PROCESS_MIB = 80
"""Engine process with no model in it: measured 47 to 75 MiB above the buffers, on four slots."""

MAX_CONTEXT_TOKENS = 100_000_000
MAX_SLOTS = 4096

CACHE_TYPES = {
    kind.name.lower(): kind
    for kind in TENSOR_TYPES.values()
    if kind.name in ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
}
"""Types a key-value cache may have, by the names engines take."""

_SLIDING_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2}
"""Architectures whose files name a window and leave the pattern to the engine: every N-th block does not slide."""

_INPUT_VALUES = 16
"""Per batch token: its id, positions and places in the cache."""

_MIB = 1024 * 1024


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker will take, in MiB, each part rounded up."""

    weights_mib: int
    kv_cache_mib: int
    compute_mib: int
    process_mib: int
    prompt_cache_mib: int
    total_mib: int
    context_tokens: int
    """Of one slot."""
    slots: int
    total_context_tokens: int
    """Of all slots: what an engine that divides one context among its slots must be given."""


def estimate(
    header: GgufHeader,
    *,
    context_tokens: int,
    slots: int,
    kv_type: str = "f16",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    embeddings: bool | None = None,
    prompt_cache_mib: int = 0,
) -> MemoryEstimate:
    """Predict the memory of a worker that serves this model.

    Args:
        header: What ``read_model`` said.
        context_tokens: Context of ONE slot; the engine's whole context is this times ``slots``.
        slots: Tasks that may run at once, each with a context of its own.
        kv_type: Type of the key-value cache, one of ``CACHE_TYPES``.
        batch_tokens: Tokens that go through the model at once.
        embeddings: Whether the engine runs with embeddings on, which makes room for the logits of a whole batch;
            by default what the model is made for.
        prompt_cache_mib: Limit of the engine's cache of earlier prompts in RAM. An engine left to itself may
            take gigabytes for it, so give the engine the limit that stands here.

    Raises:
        InvalidValueError: A number that makes no sense.
    """
    _check_range("context", context_tokens, MAX_CONTEXT_TOKENS)
    _check_range("slots", slots, MAX_SLOTS)
    _check_range("batch", batch_tokens, MAX_CONTEXT_TOKENS)
    if kv_type not in CACHE_TYPES:
        raise InvalidValueError(
            f"the cache type '{kv_type}' is not known.", hint=f"Known are {', '.join(CACHE_TYPES)}.", param="kv_type"
        )
    cells = _round_up(context_tokens, CELL_STEP_TOKENS)
    batch = min(batch_tokens, cells * slots)
    with_embeddings = header.is_embedding if embeddings is None else embeddings
    weights_mib = _mib(header.weights_bytes)
    kv_cache_mib = _mib(_kv_cache_bytes(header, cells=cells, slots=slots, batch=batch, kind=CACHE_TYPES[kv_type]))
    # A batch of embeddings has logits twice: where they are computed, and where the engine copies its outputs to.
    output_rows = slots + (2 * batch if with_embeddings else 0)
    compute_mib = _mib(_compute_bytes(header, cells=cells, batch=batch, output_rows=output_rows))
    return MemoryEstimate(
        weights_mib=weights_mib,
        kv_cache_mib=kv_cache_mib,
        compute_mib=compute_mib,
        process_mib=PROCESS_MIB,
        prompt_cache_mib=prompt_cache_mib,
        total_mib=weights_mib + kv_cache_mib + compute_mib + PROCESS_MIB + prompt_cache_mib,
        context_tokens=context_tokens,
        slots=slots,
        total_context_tokens=cells * slots,
    )


def check_fit(estimate: MemoryEstimate, *, available_mib: int, total_mib: int, model_name: str) -> None:
    """Raise unless the model fits into what a host has to give.

    ``available_mib`` is what the host has free now, ``total_mib`` what it has in all.

    Raises:
        NotEnoughMemoryError: Says what is needed and had, in MiB, and what would help.
    """
    if estimate.total_mib <= available_mib:
        return
    raise NotEnoughMemoryError(
        f"modelcell '{model_name}' needs {estimate.total_mib:,} MiB ({_parts(estimate)}) and this host has "
        f"{available_mib:,} MiB available of {total_mib:,} MiB.",
        hint=what_would_help(estimate, available_mib=available_mib, total_mib=total_mib),
    )


def what_would_help(estimate: MemoryEstimate, *, available_mib: int, total_mib: int) -> str:
    """The nearest remedies as a sentence, the ones that keep the model as it is first; MiB."""
    ways = []
    without_kv_mib = estimate.total_mib - estimate.kv_cache_mib
    room_mib = available_mib - without_kv_mib
    if room_mib > 0 and estimate.kv_cache_mib:
        # The cache grows with both numbers alike, so what is left of one of them is a proportion.
        context_tokens = estimate.context_tokens * room_mib // estimate.kv_cache_mib
        context_tokens -= context_tokens % CELL_STEP_TOKENS
        slots = estimate.slots * room_mib // estimate.kv_cache_mib
        if context_tokens:
            ways.append(f"a context of {context_tokens:,} tokens")
        if slots:
            ways.append(f"{slots} slot{'s' if slots > 1 else ''}")
    if estimate.prompt_cache_mib:
        ways.append("a smaller prompt cache")
    ways.append("a smaller quantisation or model")
    if estimate.total_mib <= total_mib:
        ways.append("stopping something else on this host")
    else:
        ways.append("a host with more memory")
    return f"What would help: {', or '.join(ways)}."


def _parts(estimate: MemoryEstimate) -> str:
    parts = (
        ("weights", estimate.weights_mib),
        (f"{estimate.slots} slots of {estimate.context_tokens:,} tokens", estimate.kv_cache_mib),
        ("compute", estimate.compute_mib),
        ("process", estimate.process_mib),
        ("prompt cache", estimate.prompt_cache_mib),
    )
    return " + ".join(f"{name} {mib:,}" for name, mib in parts if mib)


def _kv_cache_bytes(header: GgufHeader, *, cells: int, slots: int, batch: int, kind: TensorType) -> int:
    sliding = _sliding_blocks(header)
    last_with_cache = max(header.block_count - header.shared_kv_blocks, 0)
    window_cells = _window_cells(header, cells=cells, batch=batch)
    cache_bytes = 0
    for heads, slides in zip(header.kv_head_counts[:last_with_cache], sliding, strict=False):
        values = (
            (header.swa_key_length + header.swa_value_length) if slides else (header.key_length + header.value_length)
        )
        cache_bytes += slots * (window_cells if slides else cells) * kind.size_bytes(heads * values)
    return cache_bytes + slots * 4 * header.recurrent_state_values * _recurrent_blocks(header)


def _window_cells(header: GgufHeader, *, cells: int, batch: int) -> int:
    return min(cells, _round_up(header.sliding_window + batch, CELL_STEP_TOKENS))


def _recurrent_blocks(header: GgufHeader) -> int:
    """Blocks with a state: those without heads, or all when the file does not tell them apart."""
    return header.kv_head_counts.count(0) or header.block_count


def _sliding_blocks(header: GgufHeader) -> tuple[bool, ...]:
    if not header.sliding_window:
        return (False,) * header.block_count
    if header.sliding_blocks is not None:
        return header.sliding_blocks
    # A window alone does not mean that the engine uses it; without a known pattern every block counts in full.
    period = _SLIDING_PERIODS.get(header.architecture, 1)
    return sliding_by_period(period, header.block_count)


def _compute_bytes(header: GgufHeader, *, cells: int, batch: int, output_rows: int) -> int:
    width = header.embedding_length
    experts = header.expert_used_count * max(header.expert_feed_forward_length, width)
    feed_forward = 3 * max(header.feed_forward_length, experts) + 5 * width
    query = header.head_count * max(header.key_length, header.value_length)
    key_value = max(header.kv_head_counts, default=0) * (header.key_length + header.value_length)
    attention = 3 * width + 3 * query + key_value
    mask_cells = cells + (_window_cells(header, cells=cells, batch=batch) if header.sliding_window else 0)
    logits_bytes = 4 * output_rows * header.vocab_size
    return batch * (4 * (max(feed_forward, attention) + _INPUT_VALUES) + 2 * mask_cells) + logits_bytes


def _check_range(what: str, number: int, limit: int) -> None:
    if not 1 <= number <= limit:
        raise InvalidValueError(f"{what} is {number:,}; it must be between 1 and {limit:,}.", param=what)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // _MIB)
