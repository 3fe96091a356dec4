"""The home directory of one swarmesh on one machine. Every path is decided here and nowhere else."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import platformdirs

from swarmesh.core.errors import ConfigError

SOCKET_PATH_BYTES_MAX: Final = 100
"""A unix socket's path holds 104 bytes on macOS and 108 on Linux, its end included."""
LONGEST_SOCKET_NAME: Final = 48


class Home(msgspec.Struct, frozen=True):
    """Paths below ``root``. Directories have mode 0700, secrets 0600."""

    root: Path

    @property
    def config_file(self) -> Path:
        """The owner's settings."""
        return self.root / "swarmesh.toml"

    @property
    def hivecomb(self) -> Path:
        """The SQLite file."""
        return self.root / "hivecomb.db"

    @property
    def admin_key_file(self) -> Path:
        """The key the command line finds by itself."""
        return self.root / "admin.key"

    @property
    def worker_secret_file(self) -> Path:
        """What every worker key is derived from."""
        return self.root / "worker.secret"

    @property
    def queen_file(self) -> Path:
        """Where the queen listens now and under which pid; JSON, see `QueenFile`."""
        return self.root / "queen.json"

    @property
    def script_file(self) -> Path:
        """The policy script in use, with its text; JSON."""
        return self.root / "policy-script.json"

    @property
    def logs_dir(self) -> Path:
        """Logs of the queen."""
        return self.root / "logs"

    def worker_dir(self, worker_id: str) -> Path:
        """Logs and state of one worker."""
        return self.root / "rustbees" / worker_id

    @property
    def workers_dir(self) -> Path:
        """One directory per worker that was started on this machine."""
        return self.root / "rustbees"

    @property
    def sockets_dir(self) -> Path:
        """Directory of unix sockets; a short one elsewhere when the home's own path is too long for them."""
        inside = self.root / "run"
        if len(os.fsencode(inside)) + 1 + LONGEST_SOCKET_NAME <= SOCKET_PATH_BYTES_MAX:
            return inside
        digest = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"swarmesh-{os.getuid()}-{digest}"

    @property
    def host_name_file(self) -> Path:
        """What the machine is called in the swarm, on a host that lends itself."""
        return self.root / "host.name"

    @property
    def models_dir(self) -> Path:
        """Model files that were copied here from elsewhere in the swarm, a directory for each model."""
        return self.root / "models"

    @property
    def ssh_dir(self) -> Path:
        """Host keys of the machines that were added."""
        return self.root / "ssh"

    def make(self) -> None:
        """Create what is missing.

        Raises:
            ConfigError: A directory cannot be made, or belongs to somebody else.
        """
        for path in (self.root, self.logs_dir, self.workers_dir, self.sockets_dir):
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{path} cannot be made: {error.strerror}", hint="Set SWARMESH_HOME.") from error
            if path.stat().st_uid != os.getuid():
                raise ConfigError(f"{path} belongs to another user", hint="Set SWARMESH_HOME to a place of your own.")


def find_home(environ: Mapping[str, str]) -> Home:
    """The home that ``SWARMESH_HOME`` names, else the place this system keeps a user's data in."""
    named = environ.get("SWARMESH_HOME")
    return Home(Path(named).expanduser().absolute() if named else Path(platformdirs.user_data_dir("swarmesh")))


class QueenFile(msgspec.Struct, frozen=True):
    """What a running queen leaves for the command line and for workers; ``started_at`` is Unix seconds."""

    url: str
    pid: int
    started_at: float
    version: str


def read_queen_file(path: Path) -> QueenFile | None:
    """The queen's note, or None when there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=QueenFile)
    except (OSError, msgspec.DecodeError):
        return None


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file of mode 0600, or none: readers never see half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # The new name has to survive a power cut as well.
    finally:
        os.close(directory)
