"""A GGUF file's tensor table: how much the tensors hold, and whether the file holds all of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from swarmesh.core.errors import ModelFileError
from swarmesh.models.ggml_types import TENSOR_TYPES, TensorType
from swarmesh.models.gguf_cursor import GgufCursor

MAX_TENSORS = 262_144
MAX_TENSOR_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
_AGAIN = "Download or copy the file again."


class TensorTable:
    """Where the tensors lie and how much they hold. A broken entry raises ``ModelFileError``."""

    def __init__(self, path: Path, cursor: GgufCursor, *, tensor_count: int, alignment_bytes: int) -> None:
        self.path = path
        self.count = tensor_count
        self.parameters = 0
        self._alignment_bytes = alignment_bytes
        self._bytes_by_type: Counter[str] = Counter()
        self._has_unknown_type = False
        self._last: tuple[int, str] = (0, "")
        if tensor_count > MAX_TENSORS:
            raise self._wrong(f"it claims {tensor_count:,} tensors, the limit is {MAX_TENSORS:,}")
        for _ in range(tensor_count):
            self._add(cursor)
        self._data_start = _aligned(cursor.position, alignment_bytes)

    def check_extent(self, size_bytes: int) -> None:
        """Raise ``ModelFileError`` unless a file of ``size_bytes`` holds every tensor whose type is known."""
        end, name = self._last
        need_bytes = self._data_start + end
        if self.count and need_bytes > size_bytes:
            raise ModelFileError(
                f"{self.path} is cut off: its tensors need {need_bytes:,} bytes and it has {size_bytes:,} "
                f"({100 * size_bytes // need_bytes}%; tensor {name!r} is not whole).",
                hint=_AGAIN,
            )

    def weights_bytes(self, size_bytes: int) -> int:
        """Bytes of tensor data; where a type is unknown, everything after the header of the ``size_bytes``."""
        known = sum(self._bytes_by_type.values())
        return max(known, size_bytes - self._data_start) if self._has_unknown_type else known

    def main_type(self) -> str:
        """The type that holds most of the weights, empty when none is known."""
        return max(self._bytes_by_type, key=lambda name: self._bytes_by_type[name], default="")

    def _add(self, cursor: GgufCursor) -> None:
        name = cursor.name("a tensor's name", MAX_TENSOR_NAME_BYTES)
        row, values = self._shape(cursor, name)
        tensor_type = TENSOR_TYPES.get(cursor.u32())
        offset = cursor.u64()
        if offset % self._alignment_bytes:
            raise self._wrong(f"tensor {name!r} starts at {offset:,}, not at a multiple of {self._alignment_bytes}")
        self.parameters += values
        size_bytes = self._size_bytes(name, tensor_type, row=row, values=values)
        self._last = max(self._last, (offset + size_bytes, name))

    def _shape(self, cursor: GgufCursor, name: str) -> tuple[int, int]:
        """Values per row, and in all."""
        dimensions = cursor.u32()
        if dimensions > MAX_DIMENSIONS:
            raise self._wrong(f"tensor {name!r} has {dimensions:,} dimensions, the limit is {MAX_DIMENSIONS}")
        row, values = 1, 1
        for index in range(dimensions):
            extent = cursor.u64()
            values *= extent
            row = extent if index == 0 else row
        return row, values

    def _size_bytes(self, name: str, tensor_type: TensorType | None, *, row: int, values: int) -> int:
        """What the tensor takes; 0 for an unknown type, of which only the start can be checked."""
        if tensor_type is None:
            self._has_unknown_type = True
            return 0
        if row % tensor_type.block_values:
            raise self._wrong(
                f"tensor {name!r} has rows of {row:,} values, not whole {tensor_type.name} blocks of "
                f"{tensor_type.block_values}"
            )
        size_bytes = tensor_type.size_bytes(values)
        self._bytes_by_type[tensor_type.name] += size_bytes
        return size_bytes

    def _wrong(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path} has a broken GGUF header: {what}.", hint=_AGAIN)


def _aligned(position: int, alignment_bytes: int) -> int:
    return -(-position // alignment_bytes) * alignment_bytes
