"""The admin key: made at the first start, its hash in the hivecomb, itself only in a file of mode 0600."""

from __future__ import annotations

import time

from swarmesh.config.home import Home, write_private
from swarmesh.core.ids import KeyId
from swarmesh.queen.keys import Role, key_hash, new_key
from swarmesh.store.records import KeyRecord
from swarmesh.store.store import Store

ADMIN_KEY_ID = KeyId("admin")


async def load_keys(home: Home, store: Store) -> list[KeyRecord]:
    """All keys; the admin's is made when there is none, or when its file was lost (the old one is void then)."""
    records = await store.keys()
    known = next((record for record in records if record.key_id == ADMIN_KEY_ID), None)
    if known is not None and _file_matches(home, known):
        return records
    key = new_key()
    record = KeyRecord(ADMIN_KEY_ID, "admin", Role.ADMIN.value, key_hash(key), time.time_ns() // 1_000_000)
    write_private(home.admin_key_file, key.encode() + b"\n")
    await store.put_key(record)
    return [*(other for other in records if other.key_id != ADMIN_KEY_ID), record]


def _file_matches(home: Home, record: KeyRecord) -> bool:
    try:
        key = home.admin_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return False
    return key_hash(key) == record.sha256
