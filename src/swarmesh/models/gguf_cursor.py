"""Reading GGUF values from a file, one after another, within limits.

A file is untrusted: every length is checked against what the file still holds before anything is read, long
texts and arrays are skipped without being built, and the whole header has a size limit.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple

from swarmesh.core.errors import ModelFileError

MAX_HEADER_BYTES = 256 * 1024 * 1024
MAX_KEPT_TEXT_BYTES = 4096
MAX_KEPT_ITEMS = 1024
MAX_STRING_ITEMS = 4_194_304
_WINDOW_BYTES = 1024 * 1024


class ValueType(IntEnum):
    """GGUF's metadata value types."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


class GgufArray(NamedTuple):
    """An array: how many items it has, and the items when they are few numbers (else ``None``)."""

    length: int
    items: tuple[int | float | bool, ...] | None


_TYPE_FORMATS: dict[ValueType, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
_SCALARS = {kind: Struct("<" + code) for kind, code in _TYPE_FORMATS.items()}
_U32 = _SCALARS[ValueType.UINT32]
_U64 = _SCALARS[ValueType.UINT64]

GgufValue = int | float | bool | str | GgufArray


class GgufCursor:
    """A position in a GGUF file that only moves forward.

    Every method raises ``ModelFileError`` when the file ends too early or holds something that no GGUF file
    holds.
    """

    def __init__(self, stream: BinaryIO, *, size_bytes: int, path: Path) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._path = path
        self._window = b""
        self._window_start = 0
        self._index = 0

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._window_start + self._index

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self._require(count)
        if self._index + count > len(self._window):
            self._refill(count)
        start, self._index = self._index, self._index + count
        return self._window[start : self._index]

    def skip(self, count: int) -> None:
        """Move ``count`` bytes on without reading them."""
        self._require(count)
        self._index += count

    def u32(self) -> int:
        """An unsigned 32-bit number."""
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        """An unsigned 64-bit number."""
        return int(_U64.unpack(self.take(8))[0])

    def name(self, what: str, limit_bytes: int) -> str:
        """A length-prefixed text that must be whole, such as a key; ``what`` names it in an error."""
        length = self.u64()
        if length > limit_bytes:
            raise self._broken(f"{what} is {length:,} bytes long, the limit is {limit_bytes:,}")
        return self.take(length).decode("utf-8", "replace")

    def text(self) -> str:
        """A length-prefixed text, cut after ``MAX_KEPT_TEXT_BYTES``."""
        length = self.u64()
        self._require(length)
        kept = self.take(min(length, MAX_KEPT_TEXT_BYTES))
        self.skip(length - len(kept))
        return kept.decode("utf-8", "replace")

    def value(self, what: str) -> GgufValue:
        """A type number and the value that follows it."""
        kind = self._value_type(what)
        if kind is ValueType.ARRAY:
            return self._array(what)
        if kind is ValueType.STRING:
            return self.text()
        return self._scalar(kind)

    def _scalar(self, kind: ValueType) -> int | float | bool:
        scalar = _SCALARS[kind]
        result: int | float | bool = scalar.unpack(self.take(scalar.size))[0]
        return result

    def _array(self, what: str) -> GgufArray:
        kind = self._value_type(what)
        length = self.u64()
        if kind is ValueType.ARRAY:
            raise self._broken(f"{what} is an array of arrays")
        if kind is ValueType.STRING:
            self._skip_strings(what, length)
            return GgufArray(length, None)
        scalar = _SCALARS[kind]
        if length > MAX_KEPT_ITEMS:
            self.skip(length * scalar.size)
            return GgufArray(length, None)
        packed = self.take(length * scalar.size)
        return GgufArray(length, tuple(item for (item,) in scalar.iter_unpack(packed)))

    def _skip_strings(self, what: str, count: int) -> None:
        """Pass over the texts of a vocabulary; a quarter of a million of them is common, so this loop is tight."""
        if count > MAX_STRING_ITEMS:
            raise self._broken(f"{what} has {count:,} texts, the limit is {MAX_STRING_ITEMS:,}")
        self._require(count * _U64.size)
        unpack_from = _U64.unpack_from
        for _ in range(count):
            if self._index + 8 > len(self._window):
                self._require(8)
                self._refill(8)
            length = unpack_from(self._window, self._index)[0]
            self._index += 8 + length
        self._require(0)

    def _value_type(self, what: str) -> ValueType:
        number = self.u32()
        try:
            return ValueType(number)
        except ValueError:
            raise self._broken(f"{what} has the value type {number}, which GGUF does not know") from None

    def _require(self, count: int) -> None:
        end = self.position + count
        if end > self._size_bytes:
            raise self._truncated(end)
        if end > MAX_HEADER_BYTES:
            limit_mib = MAX_HEADER_BYTES // (1024 * 1024)
            raise self._broken(f"its header does not end within {limit_mib} MiB")

    def _refill(self, count: int) -> None:
        """Make the window start here and hold at least ``count`` bytes; the caller has checked they exist."""
        start = self.position
        self._stream.seek(start)
        window = self._stream.read(max(count, _WINDOW_BYTES))
        if len(window) < count:
            raise self._truncated(start + count)
        self._window, self._window_start, self._index = window, start, 0

    def _truncated(self, need_bytes: int) -> ModelFileError:
        return ModelFileError(
            f"{self._path} is cut off inside its header: it needs at least {need_bytes:,} bytes "
            f"and has {self._size_bytes:,}.",
            hint="Download or copy the file again.",
        )

    def _broken(self, what: str) -> ModelFileError:
        return ModelFileError(
            f"{self._path} has a broken GGUF header: {what} (at byte {self.position:,}).",
            hint="Download or convert the file again.",
        )
