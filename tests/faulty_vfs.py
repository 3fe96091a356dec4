"""A disk with a volatile cache below SQLite: what was not synced may be lost when the power goes.

`CachedDisk` is an APSW VFS. Files are real ones, so a store runs on it as on any disk; beside that it keeps, for
each file, what is surely on the platter and the writes that are still in the cache. When the power goes, at an
operation chosen beforehand, it fixes what could be found afterwards; every later operation fails.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import apsw

SECTOR_BYTES = 512
"""What a disk writes whole or not at all; a longer write may be torn at these borders."""


class Loss(StrEnum):
    """What the power cut does to writes that were in the cache."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


@dataclass(frozen=True)
class Change:
    """A write, or with ``data`` None a cut of the file to ``offset``."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        """As the platter sees it."""
        missing = self.offset - len(content)
        if missing > 0:
            content.extend(bytes(missing))
        if self.data is None:
            del content[self.offset :]
        else:
            content[self.offset : self.offset + len(self.data)] = self.data

    def sectors(self) -> Iterator[Change]:
        """The pieces that are whole or not there at all."""
        if self.data is None:
            yield self
            return
        begin = 0
        while begin < len(self.data):
            end = begin + SECTOR_BYTES - (self.offset + begin) % SECTOR_BYTES
            yield Change(self.offset + begin, self.data[begin:end])
            begin = end


@dataclass
class Platter:
    """One file: what is surely kept, and what is only in the cache.

    Attributes:
        durable: None while not even the file's name is sure to be there.
        is_deleted: The name was taken away, but the directory was not synced since.
    """

    durable: bytes | None
    cached: list[Change] = field(default_factory=list)
    is_deleted: bool = False

    def sync(self) -> None:
        """The cache reaches the platter."""
        content = bytearray(self.durable or b"")
        for change in self.cached:
            change.apply(content)
        self.durable = bytes(content)
        self.cached.clear()

    def after_loss(self, loss: Loss, rng: random.Random) -> bytes | None:
        """What is found after the power cut; None: no such file."""
        if self.is_deleted and (loss is Loss.NONE or (loss is Loss.SOME and rng.random() < 0.5)):
            return None
        if self.durable is None and (loss is Loss.ALL or (loss is Loss.SOME and rng.random() < 0.5)):
            return None
        content = bytearray(self.durable or b"")
        kept_share = {Loss.ALL: 0.0, Loss.SOME: rng.random(), Loss.NONE: 1.0}[loss]
        for change in self.cached:
            if rng.random() < kept_share:
                change.apply(content)
            elif loss is Loss.SOME and rng.random() < 0.25:
                for sector in change.sectors():
                    if rng.random() < 0.5:
                        sector.apply(content)
        return bytes(content)


class CachedDisk(apsw.VFS):
    """See the module. Operations that change a file are counted; the power goes at the one numbered ``cut_at``.

    Args:
        seed: Decides what is lost.
        cut_at: The operation that does not happen any more, counted from 1.
        lie_share: How many of the syncs only claim to have happened.
        sync_takes_s: How long each sync keeps its caller waiting.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        cut_at: int | None = None,
        loss: Loss = Loss.SOME,
        lie_share: float = 0.0,
        sync_takes_s: float = 0.0,
    ) -> None:
        self.name = f"cached-disk-{id(self)}"
        self.operations = 0
        self.syncs = 0
        self.lies = 0
        self.slow_syncs = 0
        self.is_off = False
        self.found: dict[str, bytes] = {}
        self._rng = random.Random(seed)  # noqa: S311 - chance by seed, no secret
        self.sync_takes_s = sync_takes_s
        self._cut_at = cut_at
        self._loss = loss
        self._lie_share = lie_share
        self._platters: dict[str, Platter] = {}
        self._lock = threading.Lock()
        self._hurried = threading.Event()
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        file = CachedFile(self, name, flags)
        if name is not None:
            self._notice(Path(name.filename() if isinstance(name, apsw.URIFilename) else name))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001 - SQLite's name and signature
        with self.changing():
            super().xDelete(filename, syncdir)
            # Unless the directory is synced, the file may be there again after the power cut, as it last was.
            platter = self._platters.get(Path(filename).name)
            if syncdir:
                self._platters.pop(Path(filename).name, None)
            elif platter is not None:
                platter.cached.clear()
                platter.is_deleted = True

    def platter(self, name: Any) -> Platter | None:
        """None for SQLite's own temporary files."""
        return None if name is None else self._platters[Path(str(name)).name]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One operation at a time, none after the power went."""
        with self._lock:
            self.operations += 1
            if self.operations == self._cut_at:
                self._cut()
            if self.is_off:
                raise apsw.IOError("the power is off")
            yield

    def sync(self, platter: Platter | None) -> None:
        """Or only claim it."""
        if self.sync_takes_s:
            self.slow_syncs += 1
            self._hurried.wait(self.sync_takes_s)
        with self.changing():
            self.syncs += 1
            if self._rng.random() < self._lie_share:
                self.lies += 1
            elif platter is not None:
                if platter.durable is None:
                    self._sync_directory()
                platter.sync()

    def cut_power(self) -> None:
        """Now, unless it went before."""
        with self._lock:
            if not self.is_off:
                self._cut()

    def restore(self, directory: Path) -> None:
        """Write what was found after the power cut as files of a directory."""
        for name, content in self.found.items():
            (directory / name).write_bytes(content)

    def hurry(self) -> None:
        """From now on syncs take no time."""
        self._hurried.set()

    def _cut(self) -> None:
        self.is_off = True
        for name, platter in sorted(self._platters.items()):
            content = platter.after_loss(self._loss, self._rng)
            if content is not None:
                self.found[name] = content

    def _sync_directory(self) -> None:
        # SQLite does so with the first sync of each journal and log it made.
        for name in [name for name, platter in self._platters.items() if platter.is_deleted]:
            del self._platters[name]

    def _notice(self, path: Path) -> None:
        with self._lock:
            platter = self._platters.get(path.name)
            if platter is None:
                content = path.read_bytes()
                # The store makes its file, and syncs its name, before SQLite ever opens it.
                is_new = not content and path.suffix != ".db"
                self._platters[path.name] = Platter(None if is_new else content)
            elif platter.is_deleted:
                platter.is_deleted = False
                platter.cached.append(Change(0, None))


class CachedFile(apsw.VFSFile):
    """A real file that tells its disk what happens to it."""

    def __init__(self, disk: CachedDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        with self._disk.changing():
            super().xWrite(data, offset)
            self._keep(Change(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        with self._disk.changing():
            super().xTruncate(newsize)
            self._keep(Change(newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name; the real disk need not be bothered
        self._disk.sync(self._disk.platter(self._name))

    def _keep(self, change: Change) -> None:
        platter = self._disk.platter(self._name)
        if platter is not None:
            platter.cached.append(change)


class RefusingDisk(apsw.VFS):
    """The machine's disk, which has no room for some of the files while told so.

    Attributes:
        refused: Endings of the names of files that take no byte, such as ``-wal``.
    """

    def __init__(self) -> None:
        self.name = f"refusing-disk-{id(self)}"
        self.refused: tuple[str, ...] = ()
        self.refusals = 0
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return RefusingFile(self, name, flags)


class RefusingFile(apsw.VFSFile):
    """One file of a `RefusingDisk`."""

    def __init__(self, disk: RefusingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._name.endswith(self._disk.refused):
            self._disk.refusals += 1
            raise apsw.FullError(f"no room in {self._name} ({errno.ENOSPC})")
        super().xWrite(data, offset)
