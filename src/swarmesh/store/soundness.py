"""Reading the whole file once in each boot of the machine, before anything is built upon it.

A power cut on a disk that only claims to have synced can leave pages of different times side by side. SQLite
notices that late or never; a process that died cannot do it, because the system still has what it wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from swarmesh.store.connection import damaged, failure
from swarmesh.store.errors import StoreFullError
from swarmesh.store.schema import queries

_SQL: Final = queries()


def check_sound(connection: apsw.Connection, path: Path, boot_id: str) -> None:
    """Look at every page and every reference, unless that was done in this boot; empty ``boot_id``: always.

    Raises:
        StoreError: The file is damaged.
    """
    try:
        if boot_id and connection.execute(_SQL["sound_in_boot"]).get == boot_id:
            return
        verdict = connection.execute("PRAGMA integrity_check(1)").get
        if verdict != "ok":
            raise damaged(path, verdict.splitlines()[-1])
        strays, table = connection.execute(_SQL["strays"]).get
        if strays:
            raise damaged(path, f"rows that belong to nothing: {strays}, the first in {table}")
        if boot_id:
            _remember(connection, path, boot_id)
    except apsw.Error as exc:
        raise failure(exc, connection, path) from exc


def _remember(connection: apsw.Connection, path: Path, boot_id: str) -> None:
    try:
        connection.execute(_SQL["put_sound_in_boot"], (boot_id,))
    except apsw.Error as exc:
        # On a full disk the next opening looks again.
        if not isinstance(failure(exc, connection, path), StoreFullError):
            raise
