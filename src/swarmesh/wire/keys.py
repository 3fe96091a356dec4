"""API keys as ``/v2/swarmesh/keys`` takes and shows them; a key itself is shown once, when it is made."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^\x00-\x1f\x7f]{1,64}$(?!\n)",
        description="1 to 64 characters, no line breaks or other control characters",
    ),
]
"""What people call a key: one line."""
Limit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
"""0 for as many as the key likes."""


class KeyRole(StrEnum):
    """What a key that can be made opens."""

    ADMIN = "admin"
    CLIENT = "client"


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/keys``.

    Attributes:
        concurrency: Tasks it may have at once.
        tokens_per_minute: Tokens it may read and write in a minute, together.
    """

    name: Name
    role: KeyRole = KeyRole.CLIENT
    concurrency: Limit = 0
    tokens_per_minute: Limit = 0


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One key without the key.

    Attributes:
        created_at: Seconds since 1970.
        running: Tasks of it that run now.
        waiting: Tasks of it that wait now.
        honeytokens: Tokens read and written in its tasks that ended since the queennode was started.
    """

    key_id: str
    name: str
    role: KeyRole
    concurrency: int
    tokens_per_minute: int
    created_at: float
    running: int = 0
    waiting: int = 0
    honeytokens: int = 0


class KeyMade(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a `KeyRequest`, and the only place where the key itself is ever said."""

    key_id: str
    key: str
    name: str
    role: KeyRole
    concurrency: int
    tokens_per_minute: int
    created_at: float


class KeyList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/keys``, the oldest first."""

    keys: list[KeyView]
