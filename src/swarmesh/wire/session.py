"""What the queen and her session on another host say to each other over SSH: one JSON object a line, both ways.

A connection begins with one line that says what it is for (`Opening`). A session then takes calls, each with a number
of its own, and answers each once, maybe after notes of its progress. A transfer carries raw bytes after its first line.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from swarmesh.wire.errors import ErrorBody

PROTOCOL: Final = 1
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
PING_INTERVAL_S: Final = 1.0
"""The queen calls ``ping`` so often. A host ends a session that it has not heard for `PINGS_MISSED_MAX` of these, with
its connection, so that no slot is kept for streams nobody can read any more."""
PINGS_MISSED_MAX: Final = 10


class Purpose(StrEnum):
    """What a connection is for."""

    SESSION = "session"
    SEND = "send"
    """The host sends a file's bytes: one `FileSize` line, then the bytes."""
    RECEIVE = "receive"
    """The host takes a file's bytes: one `Wanted` line says from where on, the bytes follow, then one `Kept` line."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """The first line the queen sends.

    Attributes:
        hive: Which hive's home on the host is meant, see `swarmesh.config.worker_key.hive_id`.
        host: The host's name in the swarm.
        secret: What the host's worker keys are derived from, in hex; a session keeps it in the hive's home there.
        path: Of the file to send.
        offset: Bytes of it the queen has already.
        name: Of the file to take: a plain file name.
        size_bytes: Of the file to take.
        sha256: Of the whole file to take, in hex; it gets its name only if it has this digest.
        directory: Below the models of the hive's home: which model the file belongs to.
    """

    purpose: Purpose
    hive: str
    host: str = ""
    secret: str = ""
    path: str = ""
    offset: int = 0
    name: str = ""
    size_bytes: int = 0
    sha256: str = ""
    directory: str = ""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a session.

    Attributes:
        queen_socket: Where the queen's port should appear on the host; nothing is there yet.
        software: Digest of the software it runs, see `swarmesh.hosts.software`.
    """

    protocol: int
    version: str
    pid: int
    boot_id: str
    queen_socket: str
    software: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call: what to do, and with what (an object of named arguments)."""

    id: int
    call: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes back for a call: a note of progress, or at last a result or an error; empty is what it is not."""

    id: int
    result: msgspec.Raw = msgspec.Raw(b"")
    error: ErrorBody | None = None
    status: int = 0
    progress: msgspec.Raw = msgspec.Raw(b"")


class FileSize(msgspec.Struct, frozen=True):
    """How large the whole file is; what follows begins at the offset that was asked for."""

    size_bytes: int


class Wanted(msgspec.Struct, frozen=True):
    """From which byte on the host wants the file: what is before it has arrived earlier."""

    offset: int


class Kept(msgspec.Struct, frozen=True):
    """The file is whole, has the right digest, and lies here."""

    path: str
