"""The modelcells of this machine: a JSON file in the home directory, and the demo that is always there.

The file is small and rarely written, by command lines that may run at the same time. So a change reads it, changes
it and replaces it whole while holding a lock; a reader needs no lock, since a replaced file is never half written.
A file that cannot be understood is left alone.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from swarmesh.config.home import write_private
from swarmesh.core.errors import ConfigError, ConflictError, ModelFileError, ModelNotFoundError
from swarmesh.models.demo import DEMO_GGUF
from swarmesh.models.gguf import GgufHeader, read_model
from swarmesh.models.modelcell import (
    Modelcell,
    ModelKind,
    ModelSource,
    check_class_path,
    check_name,
    check_url,
)

DEMO_NAME = "demo"
FILE_NAME = "models.json"
LOCK_NAME = "models.json.lock"
FILE_VERSION = 1
MAX_FILE_BYTES = 16 * 1024 * 1024
LOCK_WAIT_S = 10.0
_LOCK_RETRY_S = 0.02
_NEAREST_NAMES = 3


class _File(msgspec.Struct, frozen=True):
    """What stands in the JSON file."""

    version: int
    models: tuple[Modelcell, ...]


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal did, and what it left."""

    modelcell: Modelcell
    message: str


class Catalog:
    """The modelcells of one home directory.

    Every method may raise ``ConfigError`` when the catalog's file cannot be read, understood or written; the
    file is then as it was.
    """

    def __init__(self, home: Path, *, demo_gguf: Path = DEMO_GGUF) -> None:
        self.path = home / FILE_NAME
        self._lock_path = home / LOCK_NAME
        self._demo_gguf = demo_gguf

    def list(self) -> tuple[Modelcell, ...]:
        """All modelcells, the demo first, then by name."""
        return (self._demo(), *sorted(self._read(), key=lambda cell: cell.name))

    def get(self, name: str) -> Modelcell:
        """The modelcell of that name.

        Raises:
            ModelNotFoundError: There is none; the hint has the nearest names.
        """
        cells = self.list()
        for cell in cells:
            if cell.name == name:
                return cell
        raise _not_found(name, [cell.name for cell in cells])

    def add_file(
        self,
        name: str,
        path: Path,
        *,
        added_at: float,
        source: ModelSource = ModelSource.FILE,
        sha256: str | None = None,
        hub: str = "",
        replace: bool = False,
    ) -> Modelcell:
        """Add a GGUF file under a name; adding the same file again refreshes what is known about it.

        Raises:
            InvalidValueError: The name.
            ModelFileError: The file cannot be served.
            ConflictError: Another model has the name, and ``replace`` is not set.
        """
        check_name(name)
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would turn a cache's link into its blob
        header = read_model(absolute)
        cell = cell_of(header, name=name, source=source, added_at=added_at, sha256=sha256, hub=hub)
        return self._add(cell, replace=replace)

    def add_python_class(self, name: str, target: str, *, added_at: float, replace: bool = False) -> Modelcell:
        """Add a user's class, ``module:Class``, under a name; it is imported by the worker, not here.

        Raises:
            InvalidValueError: The name or the target.
            ConflictError: Another model has the name, and ``replace`` is not set.
        """
        cell = Modelcell(
            name=check_name(name),
            kind=ModelKind.PYTHON_CLASS,
            target=check_class_path(target),
            source=ModelSource.FILE,
            added_at=added_at,
        )
        return self._add(cell, replace=replace)

    def add_remote(self, name: str, url: str, *, added_at: float, replace: bool = False) -> Modelcell:
        """Add a model that a running server at ``url`` serves under this name.

        Raises:
            InvalidValueError: The name or the URL.
            ConflictError: Another model has the name, and ``replace`` is not set.
        """
        cell = Modelcell(
            name=check_name(name),
            kind=ModelKind.REMOTE,
            target=check_url(url),
            source=ModelSource.FILE,
            added_at=added_at,
        )
        return self._add(cell, replace=replace)

    def remove(self, name: str) -> Removal:
        """Forget a modelcell. Its file belongs to the user and stays.

        Raises:
            ModelNotFoundError: There is none of that name.
            ConflictError: It is the demo, which ships with Swarmesh.
        """
        if name == DEMO_NAME:
            raise ConflictError(f"'{DEMO_NAME}' ships with Swarmesh and cannot be removed.", param="name")
        with self._locked():
            cells = {cell.name: cell for cell in self._read()}
            if name not in cells:
                raise _not_found(name, [DEMO_NAME, *cells])
            removed = cells.pop(name)
            self._write(tuple(cells.values()))
        kept = f" The file {removed.target} is still there." if removed.kind is ModelKind.GGUF else ""
        return Removal(modelcell=removed, message=f"'{name}' is no longer in the catalog.{kept}")

    def _add(self, cell: Modelcell, *, replace: bool) -> Modelcell:
        if cell.name == DEMO_NAME:
            raise ConflictError(
                f"'{DEMO_NAME}' is the model that ships with Swarmesh.", hint="Choose another name.", param="name"
            )
        with self._locked():
            cells = {known.name: known for known in self._read()}
            known = cells.get(cell.name)
            if known is not None and known.target != cell.target and not replace:
                raise ConflictError(
                    f"the name '{cell.name}' is taken by {known.target}.",
                    hint="Choose another name, or add it with --replace.",
                    param="name",
                )
            cells[cell.name] = cell
            self._write(tuple(cells.values()))
        return cell

    def _demo(self) -> Modelcell:
        try:
            header = read_model(self._demo_gguf)
        except ModelFileError:
            # A list must not fail over one file; whoever spawns it gets the error in full.
            return Modelcell(
                name=DEMO_NAME,
                kind=ModelKind.GGUF,
                target=str(self._demo_gguf),
                source=ModelSource.BUILTIN,
                added_at=0,
            )
        return cell_of(header, name=DEMO_NAME, source=ModelSource.BUILTIN, added_at=0)

    def _read(self) -> tuple[Modelcell, ...]:
        try:
            with self.path.open("rb") as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}.") from error
        if len(content) > MAX_FILE_BYTES:
            raise self._unusable(f"it is larger than {MAX_FILE_BYTES:,} bytes")
        try:
            file = msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unusable(str(error)) from error
        if file.version != FILE_VERSION:
            raise self._unusable(f"it has version {file.version}, and version {FILE_VERSION} is known here")
        return file.models

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(
            f"the model catalog {self.path} cannot be understood: {reason}.",
            hint="Nothing was changed. Mend the file, or move it away to start an empty catalog.",
        )

    def _write(self, cells: tuple[Modelcell, ...]) -> None:
        """Replace the file whole; after a crash at any moment it is the old one or the new one."""
        content = msgspec.json.format(msgspec.json.encode(_File(FILE_VERSION, cells)), indent=2) + b"\n"
        try:
            write_private(self.path, content)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the catalog's lock, which lies beside the file since the file itself is replaced."""
        try:
            self._lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self._lock_path} cannot be opened: {error.strerror}.") from error
        try:
            _wait_for_lock(descriptor, self._lock_path)
            yield
        finally:
            os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path) -> None:
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise ConflictError(
                    f"another process has held {path} for {LOCK_WAIT_S:.0f} s.", hint="Try again."
                ) from None
            time.sleep(_LOCK_RETRY_S)
        except OSError as error:
            raise ConfigError(f"{path} cannot be locked: {error.strerror}.") from error
        else:
            return


def cell_of(
    header: GgufHeader, *, name: str, source: ModelSource, added_at: float, sha256: str | None = None, hub: str = ""
) -> Modelcell:
    """The modelcell of a model file, from what the file says about itself."""
    return Modelcell(
        name=name,
        kind=ModelKind.GGUF,
        target=header.path,
        source=source,
        added_at=added_at,
        size_bytes=header.size_bytes,
        sha256=sha256,
        architecture=header.architecture,
        parameters=header.parameters,
        context_length=header.context_length,
        quantization=header.quantization,
        hub=hub,
    )


def _not_found(name: str, names: list[str]) -> ModelNotFoundError:
    """The error with the nearest names: alike in spelling, or with the asked-for name in them."""
    asked = name.lower()
    near = [known for known in names if asked and asked in known]
    near += [known for known in difflib.get_close_matches(asked, names, n=_NEAREST_NAMES) if known not in near]
    hint = f"Did you mean {' or '.join(repr(known) for known in near[:_NEAREST_NAMES])}? " if near else ""
    return ModelNotFoundError(
        f"no modelcell is called '{name}'.", hint=hint + ModelNotFoundError.default_hint, param="model"
    )
