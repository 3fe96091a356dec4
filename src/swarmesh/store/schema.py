"""The shape of the hivecomb file: its numbered migrations and its named queries."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Final

import apsw

from swarmesh.core.errors import StoreError

APPLICATION_ID: Final = int.from_bytes(b"HIVE", "big")
_SQL: Final = resources.files(__package__) / "sql"
_MIGRATION_NAME: Final = re.compile(r"(\d{4})_\w+\.sql")
_QUERY_HEAD: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def migrations() -> list[str]:
    """The scripts that lead from one schema version to the next; the first makes version 1."""
    names = sorted(entry.name for entry in _SQL.iterdir() if _MIGRATION_NAME.fullmatch(entry.name))
    return [(_SQL / name).read_text(encoding="utf-8") for name in names]


def queries() -> dict[str, str]:
    """Every query of ``queries.sql`` by its name."""
    _, *parts = _QUERY_HEAD.split((_SQL / "queries.sql").read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the file to the newest schema, each step in a transaction of its own.

    Raises:
        StoreError: The file is some other database, or a newer Swarmesh made it; it is left as it was.
    """
    known = migrations()
    version = _recognise(connection, path, newest=len(known))
    for number, script in enumerate(known[version:], start=version + 1):
        with connection:
            for _ in connection.execute(script):
                pass
            connection.pragma("user_version", number)


def recognise(connection: apsw.Connection, path: Path) -> None:
    """Look at the file without changing it; raises as ``migrate`` does."""
    _recognise(connection, path, newest=len(migrations()))


def _recognise(connection: apsw.Connection, path: Path, *, newest: int) -> int:
    version = int(connection.pragma("user_version"))
    application_id = int(connection.pragma("application_id"))
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if application_id != APPLICATION_ID and not (application_id == 0 and is_empty):
        raise StoreError(
            f"{path} is a database, but not a hivecomb (application id {application_id:#x})",
            hint="Point the hivecomb at another path, or move that file away.",
        )
    if version > newest:
        raise StoreError(
            f"{path} has schema version {version}; this Swarmesh knows versions up to {newest}",
            hint="Use the newer Swarmesh that wrote it, or move the file away to start an empty hivecomb.",
        )
    return version
