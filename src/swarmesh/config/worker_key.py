"""Who may speak for a worker: a key derived from its id and a secret of the home, so that none has to be stored.

The queen shows it to the agent, the agent to the queen; it opens nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from swarmesh.config.home import Home


def worker_secret(home: Home) -> bytes:
    """The home's secret, made at the first call (mode 0600)."""
    path = home.worker_secret_file
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(32))
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
    return worker_id if hmac.compare_digest(key, worker_key(secret, worker_id)) else None
