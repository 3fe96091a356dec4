"""Requests about API keys, for the admin key; see `swarmesh.client.routes`."""

from __future__ import annotations

import msgspec

from swarmesh.client.call import Call
from swarmesh.client.routes import BASE, read_nothing, reader, segment
from swarmesh.wire.keys import KeyList, KeyMade, KeyRole, KeyView


def keys() -> Call[list[KeyView]]:
    """All API keys without themselves: their limits, and what they have now and have had."""
    return Call("GET", f"{BASE}/keys", lambda body: reader(KeyList)(body).keys)


def make_key(
    name: str, *, role: KeyRole | str = KeyRole.CLIENT, concurrency: int = 0, tokens_per_minute: int = 0
) -> Call[KeyMade]:
    """Make an API key; the result is the only place where it is shown.

    Whoever is over ``concurrency`` tasks at once, or ``tokens_per_minute`` read and written together, gets 429 and when
    to come again; nectarflows wait instead. 0 is for as many as it likes.
    """
    said = {"name": name, "role": role, "concurrency": concurrency, "tokens_per_minute": tokens_per_minute}
    return Call("POST", f"{BASE}/keys", reader(KeyMade), body=msgspec.json.encode(said))


def revoke_key(key_id: str) -> Call[None]:
    """Take an API key back at once; tasks that were accepted with it go on."""
    return Call("DELETE", f"{BASE}/keys/{segment(key_id, 'key_id')}", read_nothing)
