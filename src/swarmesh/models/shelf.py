"""The model files of one machine behind one small interface, so that the queen can find, measure and copy them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol

import msgspec

from swarmesh.models.gguf import GgufHeader

OnBytes = Callable[[int, int], None]
"""Takes bytes done and bytes in all."""
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$(?!\n)")]
"""A plain name: no directory, nothing hidden."""


class FilePart(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model; most models have one, large ones are split."""

    file_name: FileName
    size_bytes: int
    sha256: Sha256


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model by its content, whatever it is called and wherever it lies; ``parts`` in order, at least one."""

    modelcell: str
    parts: Annotated[tuple[FilePart, ...], msgspec.Meta(min_length=1, max_length=1000)]

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def directory(self) -> str:
        """Name of the directory that copies of it lie in."""
        return self.parts[0].sha256[:16]


class Shelf(Protocol):
    """The model files of one machine.

    A machine that is not this one may raise what its connection raises.
    """

    async def find(self, model: ModelFiles) -> str:
        """Path of the first part if every part is there with the right content, else empty.

        Looks at copies and the catalog first, then at files of the same size in the usual places (Hugging Face,
        Ollama, LM Studio); what it finds is added to the catalog under the model's name.
        """

    async def header(self, path: str) -> GgufHeader:
        """What the model file says about itself.

        Raises:
            ModelFileError: It cannot be served.
        """

    async def identify(self, modelcell: str, path: str, on_bytes: OnBytes | None = None) -> ModelFiles:
        """The content of a model file and its further parts. Digests are computed once and remembered.

        Raises:
            ModelFileError: It cannot be read.
        """

    async def keep(self, model: ModelFiles) -> str:
        """All parts have been copied: add the model to the catalog; its path.

        Raises:
            ModelFileError: A part is missing, or it cannot be served.
        """
