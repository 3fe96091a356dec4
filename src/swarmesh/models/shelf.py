"""The model files of one machine behind one small interface, so that the queen can find, measure and copy them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.models.gguf import GgufHeader, split_paths
from swarmesh.wire.hosts import FoundView

OnBytes = Callable[[int, int], None]
"""Takes bytes done and bytes in all."""
Sha256 = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)", description="64 hexadecimal digits in lower case")
]
FileName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$(?!\n)",
        description="1 to 200 letters, digits, '.', '_' and '-', a letter, digit or '_' first",
    ),
]
"""A plain name: no directory, nothing hidden."""
FILE_NAME_CHARACTERS_MAX: Final = 200
TRANSFER_CHUNK_BYTES: Final = 1024 * 1024
"""What of a file is held in memory at once."""


class TransferBrokenError(SwarmeshError):
    """The connection broke while a model file was being copied."""

    code = "transfer_failed"
    status = 502
    default_hint = "Copy it again: what has arrived is kept, and the copy goes on from there."


class DigestMismatchError(SwarmeshError):
    """A model file arrived with another content than was announced."""

    code = "model_digest_mismatch"
    status = 502
    default_hint = "What arrived was thrown away. Copy it again; check the disk and the memory of both machines."


class DiskFullError(SwarmeshError):
    """A model file does not fit on the disk."""

    code = "disk_full"
    status = 507
    default_hint = "Make room there, or set SWARMESH_HOME to a larger disk."


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

    def paths(self, first: Path) -> list[Path]:
        """Where the parts are, when the first one is at ``first``.

        Raises:
            ModelFileError: Its name does not say where the others are.
        """
        return [first] if len(self.parts) == 1 else split_paths(first, len(self.parts))


class Outgoing(Protocol):
    """Bytes of a file on their way out; ``size_bytes`` are to come. Has to be closed, also when it was read whole."""

    @property
    def size_bytes(self) -> int:
        """What was announced at the start."""

    async def read(self) -> bytes:
        """The next bytes, at most a few times `TRANSFER_CHUNK_BYTES`; empty after the last.

        Raises:
            TransferBrokenError: They ended early.
        """

    async def aclose(self) -> None:
        """Let go of the file; harmless when that has happened."""


class Incoming(Protocol):
    """A file on its way in. What has arrived stays when it is closed early, for the next try to go on from."""

    @property
    def offset(self) -> int:
        """Bytes of it that are there already."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            TransferBrokenError: The connection is lost.
            DiskFullError: They do not fit.
        """

    async def finish(self) -> str:
        """All bytes were written: check the digest and give the file its name; its path.

        Raises:
            TransferBrokenError: The connection is lost.
            DigestMismatchError: The content is another one; it is thrown away. (Another machine reports it as
                `RemoteError` with a code of its own.)
        """

    async def aclose(self) -> None:
        """Let go of the file; harmless when that has happened."""


class Shelf(Protocol):
    """The model files of one machine.

    A machine that is not this one may raise what its connection raises.
    """

    async def path_of(self, modelcell: str) -> str:
        """Path of the file a modelcell stands for there; empty when the machine's catalog knows no such file."""

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

    async def scan(self) -> list[FoundView]:
        """Look through the usual places, and add what is new to the catalog; ``host`` is left empty."""

    async def send(self, path: str, offset: int) -> Outgoing:
        """A file's bytes from ``offset`` on.

        Raises:
            ModelFileError: It cannot be read.
            TransferBrokenError: The connection is lost.
        """

    async def receive(self, model: ModelFiles, part: FilePart) -> Incoming:
        """Take a file, into the directory of its model among the copies.

        Raises:
            DiskFullError: It will not fit.
            TransferBrokenError: The connection is lost.
        """
