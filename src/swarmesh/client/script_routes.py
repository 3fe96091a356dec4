"""Requests about the policy script, for the admin key; see `swarmesh.client.routes`."""

from __future__ import annotations

import msgspec

from swarmesh.client.call import Call
from swarmesh.client.routes import BASE, read_nothing, reader
from swarmesh.wire.scripts import ReplayView, ScriptChange, ScriptTrial, ScriptView

_SCRIPT = f"{BASE}/policies/script"


def policy_script() -> Call[ScriptView]:
    """The policy script: what it is, how it does, and what it did wrong last."""
    return Call("GET", _SCRIPT, reader(ScriptView))


def activate_script(source: str, *, name: str = "script", path: str = "") -> Call[ScriptView]:
    """Let a policy script decide from now on, also after the queennode is started anew.

    ``name`` is for people. With the absolute ``path`` of a ``.star`` file that lies on the queen's machine and holds
    that source, she takes up what is saved there from then on.
    """
    body = msgspec.json.encode(ScriptChange(name, source, path))
    return Call("PUT", _SCRIPT, reader(ScriptView), body=body, slow=True)


def deactivate_script() -> Call[None]:
    """Let the built-in policies decide alone."""
    return Call("DELETE", _SCRIPT, read_nothing)


def replay_script(source: str, *, name: str = "script", hours: float = 24.0) -> Call[ReplayView]:
    """What a policy script would have changed of the decisions of the last ``hours``, a day at most."""
    body = msgspec.json.encode(ScriptTrial(name, source, hours))
    return Call("POST", f"{_SCRIPT}/replay", reader(ReplayView), body=body, slow=True)
