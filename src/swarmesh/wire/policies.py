"""The rules by which rustbees are chosen, as ``/v2/swarmesh/policies`` shows and takes them."""

from __future__ import annotations

from typing import Annotated

import msgspec


class PolicyView(msgspec.Struct, frozen=True):
    """One policy.

    Attributes:
        active: It is the one for every modelcell that has none of its own.
        modelcells: Those that have it as their own.
        unknown: Of those, the names that no modelcell has.
    """

    name: str
    description: str
    active: bool
    modelcells: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class PolicyList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/policies``."""

    policies: list[PolicyView]


class PolicyChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v2/swarmesh/policies``: holds until the queennode is started anew; ``swarmesh.toml`` says it for good.

    Attributes:
        policy: Null takes a modelcell's own away; then that of the others holds for it.
        modelcell: Whose; empty for every modelcell that has none of its own.
    """

    policy: Annotated[str, msgspec.Meta(max_length=64)] | None
    modelcell: Annotated[str, msgspec.Meta(max_length=128)] = ""
