"""Requests about the machines of the swarm and the model files on them; see `swarmesh.client.routes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from swarmesh.client.call import Call, StepsCall
from swarmesh.client.routes import BASE, EVENT_STREAM, read_nothing, reader, segment
from swarmesh.wire.hosts import (
    CheckList,
    CheckView,
    Copied,
    CopyRequest,
    FitList,
    FitRequest,
    FoundList,
    HostAddRequest,
    HostList,
    HostView,
    ScanRequest,
    Step,
)

OnStep = Callable[[Step], None]

_ACCEPT: Final = {"accept": EVENT_STREAM}


def _unseen(_step: Step) -> None:
    """Nobody wants to see the steps."""


def hosts() -> Call[list[HostView]]:
    """All machines, the queen's own first."""
    return Call("GET", f"{BASE}/hosts", lambda body: reader(HostList)(body).hosts, slow=True)


def host(name: str) -> Call[HostView]:
    """One machine."""
    return Call("GET", _path(name), reader(HostView), slow=True)


def add_host(
    address: str,
    *,
    name: str = "",
    user: str = "",
    port: int = 0,
    identity: str = "",
    proximity: float | None = None,
    fingerprint: str = "",
    on_step: OnStep = _unseen,
) -> StepsCall[HostView]:
    """Add a machine that ``ssh address`` reaches, and return it once it is connected; one that is there is repaired.

    ``fingerprint`` (``SHA256:...``) is what its host key has to have; without it a key seen for the first time is
    taken. ``on_step`` is told how far it is. Adding goes on when this client leaves.

    Raises:
        RemoteError: It could not be added; nothing is left behind on it.
        QueenUnreachableError: No queen answers, or she left in the middle.
    """
    asked = HostAddRequest(
        address=address,
        name=name,
        user=user,
        port=port,
        identity=identity,
        proximity=proximity,
        fingerprint=fingerprint,
    )
    body = msgspec.to_builtins(asked)
    if proximity is None:
        del body["proximity"]  # What is not said stays as it is.
    call = Call("POST", f"{BASE}/hosts", reader(HostView), headers=_ACCEPT, body=msgspec.json.encode(body))
    return StepsCall(call, on_step)


def remove_host(
    name: str,
    *,
    keep_models: bool = False,
    forget: bool = False,
    grace_s: float | None = None,
    on_step: OnStep = _unseen,
) -> StepsCall[None]:
    """Stop a machine's workers, take away what was installed there, and forget it.

    With ``forget`` one that is out of reach is forgotten, too, and what is there stays there.

    Raises:
        RemoteError: There is none of that name, it is out of reach, or something there could not be stopped.
        QueenUnreachableError: No queen answers, or she left in the middle.
    """
    flags = {"keep_models": keep_models, "forget": forget}
    query = {**_grace(grace_s), **{flag: "true" for flag, is_set in flags.items() if is_set}}
    return StepsCall(Call("DELETE", _path(name), read_nothing, query=query, headers=_ACCEPT), on_step)


def drain_host(name: str, grace_s: float | None = None) -> Call[HostView]:
    """Start nothing new on a machine and let its workers end, at the latest after ``grace_s`` seconds."""
    return Call("POST", f"{_path(name)}/drain", reader(HostView), query=_grace(grace_s), slow=True)


def resume_host(name: str) -> Call[HostView]:
    """Let a machine take workers again."""
    return Call("POST", f"{_path(name)}/resume", reader(HostView), slow=True)


def host_checks(name: str) -> Call[list[CheckView]]:
    """What a machine has and lacks."""
    return Call("GET", f"{_path(name)}/checks", lambda body: reader(CheckList)(body).checks, slow=True)


def fit(modelcell: str, *, slots: int | None = None, context: int | None = None) -> Call[FitList]:
    """What a modelcell needs, and on which machine that is free."""
    body = msgspec.json.encode(FitRequest(modelcell=modelcell, slots=slots, context=context))
    return Call("POST", f"{BASE}/models/fit", reader(FitList), body=body, slow=True)


def copy_model(modelcell: str, to: str, *, on_step: OnStep = _unseen) -> StepsCall[Copied]:
    """Bring a modelcell's file to a machine, and return where it is then.

    A copy that broke off, or whose client left, goes on where it was when it is asked for again.

    Raises:
        RemoteError: It could not be copied.
        QueenUnreachableError: No queen answers, or she left in the middle.
    """
    body = msgspec.json.encode(CopyRequest(modelcell=modelcell, to=to))
    return StepsCall(Call("POST", f"{BASE}/models/copy", reader(Copied), headers=_ACCEPT, body=body), on_step)


def scan_models(host: str = "") -> Call[FoundList]:
    """Model files in the usual places of a machine, of every machine when none is named.

    What is found is added to that machine's catalog, so that a worker can be spawned by its name.
    """
    body = msgspec.json.encode(ScanRequest(host=host))
    return Call("POST", f"{BASE}/models/scan", reader(FoundList), body=body, slow=True)


def _path(name: str) -> str:
    return f"{BASE}/hosts/{segment(name, 'name')}"


def _grace(grace_s: float | None) -> dict[str, str]:
    return {} if grace_s is None else {"grace_s": f"{grace_s:g}"}
