"""A GGUF file's metadata: typed answers to what a key holds."""

from __future__ import annotations

from pathlib import Path

from swarmesh.core.errors import ModelFileError
from swarmesh.models.gguf_cursor import GgufArray, GgufCursor, GgufValue

MAX_KEYS = 4096
MAX_KEY_BYTES = 65_535
MAX_COUNT = 2**31 - 1
_DEFAULT_ALIGNMENT_BYTES = 32


class Metadata:
    """The keys of one file, asked for by name.

    The typed questions raise ``ModelFileError`` when a key holds a value of another type.
    """

    def __init__(self, path: Path, cursor: GgufCursor, *, key_count: int) -> None:
        self.path = path
        self._values: dict[str, GgufValue] = {}
        if key_count > MAX_KEYS:
            raise self.wrong(f"it claims {key_count:,} keys, the limit is {MAX_KEYS:,}")
        for _ in range(key_count):
            key = cursor.name("a key", MAX_KEY_BYTES)
            if key in self._values:
                raise self.wrong(f"the key {key!r} stands there twice")
            self._values[key] = cursor.value(f"the key {key!r}")
        self.architecture = self.text("general.architecture")

    def own(self, key: str) -> str:
        """The full name of a key that belongs to this file's architecture."""
        return f"{self.architecture}.{key}"

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def raw(self, key: str) -> GgufValue | None:
        """The value as it stands in the file, ``None`` when missing."""
        return self._values.get(key)

    def text(self, key: str) -> str:
        """A text made safe to print, empty when missing."""
        value = self._values.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(f"the key {key!r} should hold a text and holds {value!r}")
        return "".join(character for character in value if character.isprintable()).strip()

    def array_length(self, key: str) -> int:
        """How many items an array has; 0 when missing or not an array."""
        value = self._values.get(key)
        return value.length if isinstance(value, GgufArray) else 0

    def counts(self, key: str) -> tuple[int, ...]:
        """One count, or an array of them; empty when missing."""
        value = self._values.get(key)
        if value is None:
            return ()
        items = value.items if isinstance(value, GgufArray) else (value,)
        if items is None:
            raise self.wrong(f"the key {key!r} should hold counts and holds a longer or another array")
        return tuple(self._checked_count(key, item) for item in items)

    def count(self, key: str, default: int = 0) -> int:
        """One count; of an array with one per block, the largest."""
        return max(self.counts(key), default=default)

    def alignment_bytes(self) -> int:
        """What tensors begin at multiples of."""
        alignment = self.count("general.alignment", _DEFAULT_ALIGNMENT_BYTES)
        if alignment < 1 or alignment & (alignment - 1):
            raise self.wrong(f"its alignment {alignment} is not a power of two")
        return alignment

    def limited(self, key: str, limit: int, default: int = 0) -> int:
        """A count that things are made from, so it has a limit."""
        count = self.count(key, default)
        if count > limit:
            raise self.wrong(f"the key {key!r} holds {count:,}, the limit is {limit:,}")
        return count

    def wrong(self, what: str) -> ModelFileError:
        """The error for something this file should not hold."""
        return ModelFileError(f"{self.path} has a broken GGUF header: {what}.", hint="Download or copy the file again.")

    def _checked_count(self, key: str, item: object) -> int:
        if not isinstance(item, int) or not 0 <= item <= MAX_COUNT:
            raise self.wrong(f"the key {key!r} should hold a count and holds {item!r}")
        return int(item)
