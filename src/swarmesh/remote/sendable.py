"""Which files of this machine may be sent: model files of the swarm and of the usual places, nothing else."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from swarmesh.config.home import Home
from swarmesh.core.errors import ForbiddenError, ModelFileError, NotFoundError
from swarmesh.models.catalog import Catalog
from swarmesh.models.gguf import MAGIC, split_name, split_paths
from swarmesh.models.scan import ScanRoot

_BLOB: Final = re.compile(r"(sha256-)?[0-9a-f]{64}|[0-9a-f]{40}")
_ENDING: Final = ".gguf"


def sendable(text: str, home: Home, roots: Sequence[ScanRoot]) -> Path:
    """The path, if it is one of the models'. Says of no other file whether it exists.

    Raises:
        ForbiddenError: It is none.
        NotFoundError: It would be one, but is not there.
        ModelFileError: It cannot be read.
    """
    path = Path(text)
    if not _may_be_named(text, path) or not (_among(path, home, roots) or _catalogued(path, home)):
        raise _forbidden(text)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _forbidden(text)
        with path.open("rb") as file:
            # Links lead anywhere; every part of a model begins like this, and no key or letter does.
            if file.read(len(MAGIC)) != MAGIC:
                raise _forbidden(text)
    except FileNotFoundError:
        raise NotFoundError(f"there is no model file {text}") from None
    except OSError as error:
        raise ModelFileError(f"the model file {text} cannot be read: {error.strerror}") from error
    return path


def _may_be_named(text: str, path: Path) -> bool:
    return path.is_absolute() and ".." not in path.parts and "\0" not in text


def _among(path: Path, home: Home, roots: Sequence[ScanRoot]) -> bool:
    if path.is_relative_to(home.models_dir):
        return path.suffix.lower() == _ENDING
    return any(_is_model_in(path, place) for root in roots for place in _names_of(root.path))


def _names_of(directory: Path) -> tuple[Path, ...]:
    # A path may have been found by either name.
    return (directory, Path(os.path.realpath(directory)))


def _is_model_in(path: Path, root: Path) -> bool:
    if not path.is_relative_to(root):
        return False
    return path.suffix.lower() == _ENDING or (path.parent.name == "blobs" and _BLOB.fullmatch(path.name) is not None)


def _catalogued(path: Path, home: Home) -> bool:
    return any(path in _files_of(cell.path) for cell in Catalog(home.root).list() if cell.path is not None)


def _files_of(first: Path) -> Iterator[Path]:
    yield first
    named = split_name(first.name)
    if named is not None and named[1] == 1:
        yield from split_paths(first, named[2])


def _forbidden(text: str) -> ForbiddenError:
    return ForbiddenError(
        f"{text!r} is not among the model files of this host",
        hint="Those in the usual places and in the swarm's catalog are sent, no other file.",
    )
