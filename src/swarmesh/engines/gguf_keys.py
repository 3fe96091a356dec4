"""The two facts of a GGUF file that its engine has to be started with.

The whole header is read by `swarmesh.models` before a worker is ever spawned; here a search for the key's name is
enough. Metadata lie at the front of the file, before the tensors.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

from swarmesh.core.errors import EngineStartError

METADATA_BYTES_MAX: Final = 64 * 1024 * 1024
"""How far metadata are looked for; the largest vocabularies in use take about a quarter of it."""
GGUF_UINT32: Final = 4


def require_model(path: str) -> None:
    """Raise unless there is a file; what is in it was checked before the worker was spawned.

    Raises:
        EngineStartError: There is none.
    """
    if not Path(path).is_file():
        raise EngineStartError(
            f"the model file {path or '(none was named)'} does not exist",
            hint="'swarmesh models list' shows the modelcells and where they lie.",
        )


def has_chat_template(path: str) -> bool:
    """Whether the model says how a chat is written; a base model does not."""
    return _find(path, b"tokenizer.chat_template") is not None


def declared_pooling(path: str) -> int | None:
    """llama.cpp's number of the pooling that an embedding model was made for; None for every other model."""
    rest = _find(path, b".pooling_type")
    if rest is None or len(rest) < 8:
        return None
    kind, value = struct.unpack_from("<II", rest)
    return value if kind == GGUF_UINT32 else None


def _find(path: str, key: bytes) -> bytes | None:
    with Path(path).open("rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # An empty file cannot be mapped.
            return None
        with view:
            start = view.find(key, 0, min(len(view), METADATA_BYTES_MAX))
            return None if start < 0 else view[start + len(key) : start + len(key) + 8]
