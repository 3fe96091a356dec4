"""Finding the GGUF models that are already on this machine.

One walk serves a directory of the user's, the Hugging Face cache (whose snapshots are links into its blobs) and
LM Studio's directory; Ollama's is read by its manifests. Everything is bounded, links are followed and a directory
is entered once, so that a loop ends. A file that cannot be used is reported with the reason and stops nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from swarmesh.core.errors import ModelFileError, NotFoundError
from swarmesh.models.gguf import GgufHeader, read_model, split_name
from swarmesh.models.modelcell import Modelcell
from swarmesh.models.ollama import UnusableManifest, is_ollama_directory, read_manifest
from swarmesh.models.proposed_name import propose_names

MAX_DEPTH = 12
MAX_ENTRIES = 200_000
MAX_MODELS = 10_000
_ENDING = ".gguf"


class Origin(StrEnum):
    """Whose directory a model was found in."""

    DIRECTORY = "directory"
    HUGGING_FACE = "hugging_face"
    LM_STUDIO = "lm_studio"
    OLLAMA = "ollama"


class ScanRoot(msgspec.Struct, frozen=True):
    """A directory to look through."""

    origin: Origin
    path: Path


class FoundModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be added to the catalog under ``name``."""

    name: str
    path: Path
    origin: Origin
    header: GgufHeader
    sha256: str | None
    known_as: str | None
    """The modelcell that already stands for this file; then ``name`` is that name."""


class SkippedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that looked like a model and is not offered, and why."""

    path: Path
    reason: str


class ScanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan found, in order of path."""

    found: tuple[FoundModel, ...]
    skipped: tuple[SkippedFile, ...]
    limit_reached: str | None
    """Which limit ended the scan early, ``None`` when it looked at everything."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A file that may be a model; nobody has looked into it yet."""

    path: Path
    origin: Origin
    label: str
    """What a name is made from: a file's stem, or the name in a manifest."""
    sha256: str | None = None


def default_roots(environ: Mapping[str, str], home: Path) -> tuple[ScanRoot, ...]:
    """Where models usually lie, for a user with this environment and home directory; they need not exist."""
    hub = environ.get("HF_HUB_CACHE") or os.path.join(  # noqa: PTH118  a variable may hold '~', which expands below
        environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface", "hub"
    )
    places = (
        (Origin.HUGGING_FACE, hub),
        (Origin.OLLAMA, environ.get("OLLAMA_MODELS") or "~/.ollama/models"),
        (Origin.OLLAMA, "/usr/share/ollama/.ollama/models"),
        (Origin.LM_STUDIO, "~/.lmstudio/models"),
        (Origin.LM_STUDIO, "~/.cache/lm-studio/models"),
    )
    return tuple(ScanRoot(origin, _expanded(place, home)) for origin, place in places)


def roots_of_this_machine() -> tuple[ScanRoot, ...]:
    """``default_roots`` for whoever runs this process."""
    return default_roots(os.environ, Path.home())


def directory_root(directory: Path) -> ScanRoot:
    """A directory that the user named.

    Raises:
        NotFoundError: It is not there, or is not a directory.
    """
    if not directory.exists():
        raise NotFoundError(f"there is no directory {directory}.", param="directory")
    if not directory.is_dir():
        raise NotFoundError(
            f"{directory} is a file, not a directory.",
            hint=f"'swarmesh models add {directory}' adds it.",
            param="directory",
        )
    return ScanRoot(Origin.DIRECTORY, directory.absolute())


def scan(
    roots: Sequence[ScanRoot],
    catalog: Collection[Modelcell],
    *,
    on_file: Callable[[Path], None] | None = None,
) -> ScanReport:
    """Look through ``roots``; ``catalog`` is what is known already, ``on_file`` hears of each file looked into."""
    walk = _Walk()
    skipped: list[SkippedFile] = []
    readable: list[tuple[Candidate, GgufHeader]] = []
    for item in _each_file_once(walk.candidates(roots)):
        if isinstance(item, Candidate):
            if on_file is not None:
                on_file(item.path)
            header = _read(item)
            if isinstance(header, SkippedFile):
                skipped.append(header)
            else:
                readable.append((item, header))
        else:
            skipped.append(item)
        if len(readable) >= MAX_MODELS:
            walk.limit_reached = f"{MAX_MODELS:,} models"
            break
    return ScanReport(
        found=tuple(_named(readable, catalog)),
        skipped=(*skipped, *walk.unreadable),
        limit_reached=walk.limit_reached,
    )


def candidates(roots: Sequence[ScanRoot]) -> Iterator[Candidate]:
    """The files below ``roots`` that look like models by their names alone."""
    return (item for item in _each_file_once(_Walk().candidates(roots)) if isinstance(item, Candidate))


def _named(readable: Sequence[tuple[Candidate, GgufHeader]], catalog: Collection[Modelcell]) -> Iterator[FoundModel]:
    known = {_identity(Path(cell.target)): cell.name for cell in catalog if cell.path is not None}
    new = [candidate for candidate, _ in readable if _identity(candidate.path) not in known]
    names = iter(propose_names([candidate.label for candidate in new], taken={cell.name for cell in catalog}))
    for candidate, header in readable:
        known_as = known.get(_identity(candidate.path))
        yield FoundModel(
            name=known_as or next(names),
            path=candidate.path,
            origin=candidate.origin,
            header=header,
            sha256=candidate.sha256,
            known_as=known_as,
        )


def _read(candidate: Candidate) -> GgufHeader | SkippedFile:
    part = split_name(candidate.path.name)
    if part is not None and part[1] > 1:
        return SkippedFile(path=candidate.path, reason=f"part {part[1]} of {part[2]} of a model")
    if "mmproj" in candidate.path.name.lower():
        return SkippedFile(path=candidate.path, reason="a vision projector, not a model by itself")
    try:
        return read_model(candidate.path)
    except ModelFileError as error:
        return SkippedFile(path=candidate.path, reason=error.message)


def _each_file_once(items: Iterator[Candidate | SkippedFile]) -> Iterator[Candidate | SkippedFile]:
    """Drop a file that was seen under another name, such as one blob in two snapshots."""
    seen: set[tuple[int, int] | Path] = set()
    for item in items:
        if isinstance(item, Candidate):
            identity = _identity(item.path)
            if identity in seen:
                continue
            seen.add(identity)
        yield item


def _identity(path: Path) -> tuple[int, int] | Path:
    """What two names of one file have in common; a missing file is known by its name alone."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return path
    return status.st_dev, status.st_ino


def _expanded(place: str, home: Path) -> Path:
    return home / place[2:] if place.startswith("~/") else Path(place)


class _Walk:
    """One pass over some directories, with what it has used up of its limits."""

    def __init__(self) -> None:
        self.limit_reached: str | None = None
        self.unreadable: list[SkippedFile] = []
        self._entries = 0
        self._entered: set[tuple[int, int] | Path] = set()

    def candidates(self, roots: Sequence[ScanRoot]) -> Iterator[Candidate | SkippedFile]:
        for root in roots:
            if is_ollama_directory(root.path):
                yield from self._ollama(root.path)
            elif root.path.is_dir():
                yield from self._ggufs(root)

    def _ggufs(self, root: ScanRoot) -> Iterator[Candidate]:
        for path in self._files(root.path, depth=0):
            if path.suffix.lower() == _ENDING:
                yield Candidate(path=path, origin=root.origin, label=path.stem)

    def _ollama(self, models: Path) -> Iterator[Candidate | SkippedFile]:
        for manifest in self._files(models / "manifests", depth=0):
            entry = read_manifest(models, manifest)
            if isinstance(entry, UnusableManifest):
                yield SkippedFile(path=entry.path, reason=entry.reason)
            else:
                yield Candidate(path=entry.blob, origin=Origin.OLLAMA, label=entry.name, sha256=entry.sha256)

    def _files(self, directory: Path, depth: int) -> Iterator[Path]:
        """The files below a directory in order of name; hidden directories hold no models."""
        for path, is_directory in self._entries_of(directory):
            if not is_directory:
                yield path
            elif depth == MAX_DEPTH:
                self.limit_reached = f"{MAX_DEPTH} levels of directories"
            elif not path.name.startswith("."):
                yield from self._files(path, depth + 1)

    def _entries_of(self, directory: Path) -> Iterator[tuple[Path, bool]]:
        identity = _identity(directory)
        if identity in self._entered:
            return
        self._entered.add(identity)
        try:
            with os.scandir(directory) as listing:
                entries = sorted(self._counted(listing), key=lambda entry: entry.name)
        except OSError as error:
            # Somebody else's directory, or one that has just gone; the rest is still worth finding.
            self.unreadable.append(SkippedFile(path=directory, reason=f"the directory: {error.strerror}"))
            return
        for entry in entries:
            yield Path(entry.path), _is_directory(entry)

    def _counted(self, listing: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in listing:
            if self._entries >= MAX_ENTRIES:
                self.limit_reached = f"{MAX_ENTRIES:,} directory entries"
                return
            self._entries += 1
            yield entry


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
