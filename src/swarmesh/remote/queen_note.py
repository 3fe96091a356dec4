"""Where this host's agents find the queen: the socket that leads to her, and the note that names it."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from swarmesh import __version__
from swarmesh.config.home import SOCKET_PATH_BYTES_MAX, Home, QueenFile, read_queen_file, write_private
from swarmesh.core.errors import ConfigError
from swarmesh.hosts.process_identity import identify

LOOK_S: Final = 0.2
"""How long a listener may take to be found alive; on one machine it needs far less."""


class QueenNote:
    """One session's. Several sessions of one hive may overlap: an old one whose network is gone, and its successor."""

    def __init__(self, home: Home) -> None:
        self._home = home
        for path in home.sockets_dir.glob("queen-*.sock"):
            if not _listened_to(path):
                path.unlink(missing_ok=True)
        self.socket = home.sockets_dir / f"queen-{secrets.token_hex(4)}.sock"
        length = len(os.fsencode(self.socket))
        if length > SOCKET_PATH_BYTES_MAX:
            raise ConfigError(
                f"{self.socket} has {length} bytes, and a socket's path may have {SOCKET_PATH_BYTES_MAX}",
                hint="Set TMPDIR to a shorter path on that host.",
            )

    def write(self) -> None:
        """Say that the queen is there. Agents that have lost her read the note until they find her."""
        me = identify(os.getpid())
        assert me is not None, "this process runs"
        note = QueenFile(self._url, me.pid, me.started_at, __version__)
        with self._locked():
            write_private(self._home.queen_file, msgspec.json.encode(note))

    def withdraw(self) -> None:
        """Take the note away, unless another session has written its own, and the socket."""
        with self._locked():
            note = read_queen_file(self._home.queen_file)
            if note is not None and note.url == self._url:
                self._home.queen_file.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)

    @property
    def _url(self) -> str:
        return f"unix:{self.socket}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Without it one session could read its own note, and take away the next one's that came in between.
        path = self._home.queen_file.with_suffix(".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.settimeout(LOOK_S)
        try:
            probe.connect(os.fspath(path))
        except (BlockingIOError, TimeoutError):
            return True  # Its backlog is full.
        return True
    return False
