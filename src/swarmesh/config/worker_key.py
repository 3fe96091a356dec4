"""Who may speak for a worker: a key derived from its id and a secret of the home, so that none has to be stored.

The queen shows it to the agent, the agent to the queen; it opens nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets

from swarmesh.config.home import Home, write_private


def worker_secret(home: Home) -> bytes:
    """The home's secret, made at the first call (mode 0600)."""
    path = home.worker_secret_file
    if not path.exists():
        # Made aside and linked into place: of two that start at once one wins, and nobody reads half a secret.
        mine = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        write_private(mine, secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
        mine.unlink()
    return path.read_bytes()


def worker_key(secret: bytes, worker_id: str) -> str:
    """The key of one worker: ``rustbee.ID.HEX``."""
    return f"rustbee.{worker_id}.{hmac.new(secret, worker_id.encode(), hashlib.sha256).hexdigest()}"


def worker_of_key(secret: bytes, key: str) -> str | None:
    """The worker a key speaks for; None when it was not made with this secret."""
    kind, _, rest = key.partition(".")
    worker_id, _, _ = rest.rpartition(".")
    if kind != "rustbee" or not worker_id:
        return None
    # As bytes: what a stranger sends need not be ASCII, and text that is not cannot be compared.
    return worker_id if hmac.compare_digest(key.encode(), worker_key(secret, worker_id).encode()) else None


def host_secret(secret: bytes, host: str, added_at_ms: int) -> bytes:
    """What the worker keys of another host are derived from, so that a host can speak for its own workers only.

    A host that is removed and added again gets another one: the keys of the machine before are worth nothing.
    """
    return hmac.new(secret, b"host\0%d\0%b" % (added_at_ms, host.encode()), hashlib.sha256).digest()


def hive_id(secret: bytes) -> str:
    """Which hive this is, as hosts know it: one host may lend itself to several, each with a home of its own there."""
    return hmac.new(secret, b"hive", hashlib.sha256).hexdigest()[:12]
