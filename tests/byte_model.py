"""A llama.cpp model that has a token for every byte and no preference among them."""

from __future__ import annotations

from collections.abc import Sequence

from gguf_writer import Gguf, Typed

WIDTH, FEED_FORWARD = 32, 64
UNKNOWN, CONTROL, BYTE = 2, 3, 6
F16, F32 = 1, 0


def byte_model() -> Gguf:
    """One block of zeros, so that every token is as likely as any other; a grammar decides which one comes."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    keys = {
        "general.architecture": Typed("str", "llama"),
        "llama.context_length": Typed("u32", 256),
        "llama.block_count": Typed("u32", 1),
        "llama.embedding_length": Typed("u32", WIDTH),
        "llama.feed_forward_length": Typed("u32", FEED_FORWARD),
        "llama.attention.head_count": Typed("u32", 1),
        "llama.attention.layer_norm_rms_epsilon": Typed("f32", 1e-5),
        "tokenizer.ggml.model": Typed("str", "llama"),
        "tokenizer.ggml.tokens": Typed("arr", tokens, of="str"),
        "tokenizer.ggml.scores": Typed("arr", [0.0] * len(tokens), of="f32"),
        "tokenizer.ggml.token_type": Typed("arr", [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256, of="i32"),
        "tokenizer.ggml.bos_token_id": Typed("u32", 1),
        "tokenizer.ggml.eos_token_id": Typed("u32", 2),
    }
    square = [f"blk.0.attn_{name}.weight" for name in ("q", "k", "v", "output")]
    tensors: list[tuple[str, Sequence[int], int]] = [
        ("token_embd.weight", (WIDTH, len(tokens)), F16),
        ("output.weight", (WIDTH, len(tokens)), F16),
        *((name, (WIDTH,), F32) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")),
        *((name, (WIDTH, WIDTH), F16) for name in square),
        ("blk.0.ffn_gate.weight", (WIDTH, FEED_FORWARD), F16),
        ("blk.0.ffn_up.weight", (WIDTH, FEED_FORWARD), F16),
        ("blk.0.ffn_down.weight", (FEED_FORWARD, WIDTH), F16),
    ]
    return Gguf(keys, tensors)
