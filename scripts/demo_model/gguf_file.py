"""Write a trained network as a GGUF file that llama.cpp loads: matrices in f16, norms in f32."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from torch import Tensor

from demo_model.chat import CHAT_TEMPLATE
from demo_model.network import Network
from demo_model.tokenizer import END_OF_TEXT_ID, MESSAGE_END_ID, PRE_TOKENIZER, SPECIAL_TOKENS, Tokenizer

_BLOCK_TENSORS = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def write(path: Path, network: Network, tokenizer: Tokenizer) -> None:
    """Write beside ``path`` and move it into place, so that a reader never sees half a file."""
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    _write_shape(writer, network)
    _write_tokenizer(writer, tokenizer)
    for name, weight in network.state_dict().items():
        writer.add_tensor(_tensor_name(name), _array(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)


def _write_shape(writer: gguf.GGUFWriter, network: Network) -> None:
    shape = network.shape
    writer.add_name("Swarmesh demo")
    writer.add_description("A toy that ships with Swarmesh. It knows Swarmesh's words and one song.")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    special, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokenizer.gguf_tokens())
    writer.add_token_types([special if token in SPECIAL_TOKENS else normal for token in tokenizer.tokens])
    writer.add_token_merges(tokenizer.gguf_merges())
    writer.add_bos_token_id(END_OF_TEXT_ID)
    writer.add_eos_token_id(MESSAGE_END_ID)
    writer.add_eot_token_id(MESSAGE_END_ID)
    writer.add_pad_token_id(END_OF_TEXT_ID)
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensor_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem == "embedding":
        return "token_embd.weight"
    if stem == "norm":
        return "output_norm.weight"
    _, index, part = stem.split(".", 2)
    return f"blk.{index}.{_BLOCK_TENSORS[part]}.weight"


def _array(weight: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
    return weight.detach().numpy().astype(np.float16 if weight.dim() == 2 else np.float32)
