"""Small GGUF files for tests, written byte by byte so that each byte can be wrong on purpose."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ALIGNMENT_BYTES = 32
_CODES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9}
_CODES |= {"u64": 10, "i64": 11, "f64": 12}
_FORMATS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "?"}
_FORMATS |= {"u64": "Q", "i64": "q", "f64": "d"}
_BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34), 12: (256, 144)}


@dataclass(frozen=True)
class Typed:
    """A metadata value with its GGUF type; ``items`` is a list for ``arr``, whose items have type ``of``."""

    type: str
    value: object
    of: str = ""


@dataclass
class Gguf:
    """What goes into a file; ``build`` gives its bytes."""

    keys: dict[str, Typed] = field(default_factory=dict)
    tensors: list[tuple[str, Sequence[int], int]] = field(default_factory=list)
    version: int = 3
    order: str = "<"
    tensor_count: int | None = None
    key_count: int | None = None
    offset_shift: int = 0

    def build(self) -> bytes:
        return self.header() + bytes(self.data_bytes())

    def header(self) -> bytes:
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        key_count = len(self.keys) if self.key_count is None else self.key_count
        parts = [b"GGUF", self._pack("IQQ", self.version, tensor_count, key_count)]
        parts += [self._text(key) + self._typed(value) for key, value in self.keys.items()]
        offset = self.offset_shift
        for name, shape, type_number in self.tensors:
            parts.append(self._text(name) + self._pack("I", len(shape)) + self._pack(f"{len(shape)}Q", *shape))
            parts.append(self._pack("IQ", type_number, offset))
            offset += _padded(tensor_bytes(shape, type_number))
        header = b"".join(parts)
        return header.ljust(_padded(len(header)), b"\0")

    def data_bytes(self) -> int:
        return sum(_padded(tensor_bytes(shape, number)) for _, shape, number in self.tensors)

    def _typed(self, value: Typed) -> bytes:
        head = self._pack("I", _CODES[value.type])
        if value.type == "arr":
            assert isinstance(value.value, Sequence)
            items = b"".join(self._plain(value.of, item) for item in value.value)
            return head + self._pack("IQ", _CODES[value.of], len(value.value)) + items
        return head + self._plain(value.type, value.value)

    def _plain(self, kind: str, value: object) -> bytes:
        return self._text(str(value)) if kind == "str" else self._pack(_FORMATS[kind], value)

    def _text(self, text: str) -> bytes:
        encoded = text.encode()
        return self._pack("Q", len(encoded)) + encoded

    def _pack(self, code: str, *values: object) -> bytes:
        return struct.pack(self.order + code, *values)


def tensor_bytes(shape: Sequence[int], type_number: int) -> int:
    values = 1
    for extent in shape:
        values *= extent
    block, size = _BLOCKS.get(type_number, (1, 1))
    return values // block * size


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def llama(
    name: str = "Tiny", extra: Mapping[str, Typed] | None = None, *, architecture: str = "llama", blocks: int = 2
) -> Gguf:
    """A model with everything that a real one has, in about two kilobytes."""
    own = architecture
    keys = {
        "general.architecture": Typed("str", architecture),
        "general.name": Typed("str", name),
        "general.file_type": Typed("u32", 1),
        f"{own}.context_length": Typed("u32", 2048),
        f"{own}.block_count": Typed("u32", blocks),
        f"{own}.embedding_length": Typed("u32", 16),
        f"{own}.feed_forward_length": Typed("u32", 32),
        f"{own}.attention.head_count": Typed("u32", 4),
        f"{own}.attention.head_count_kv": Typed("u32", 2),
        "tokenizer.ggml.model": Typed("str", "gpt2"),
        "tokenizer.ggml.tokens": Typed("arr", [f"t{index}" for index in range(20)], of="str"),
        "tokenizer.ggml.scores": Typed("arr", [0.5] * 20, of="f32"),
        "tokenizer.chat_template": Typed("str", "{{ messages }}"),
    }
    tensors: list[tuple[str, Sequence[int], int]] = [
        ("token_embd.weight", (16, 20), 1),
        ("output_norm.weight", (16,), 0),
    ]
    return Gguf(keys | dict(extra or {}), tensors)


def write(path: Path, gguf: Gguf | None = None) -> Path:
    """Write a file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((gguf or llama()).build())
    return path
