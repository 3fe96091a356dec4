"""`swarmesh.toml`: what the owner may set, with its defaults."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from swarmesh.core.errors import ConfigError
from swarmesh.core.policies import PolicyName

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class QueenSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[queennode]``: the one port, and how much may come through it.

    Attributes:
        host: Address to listen on; anything but loopback lets the network in (a key is asked for all the same).
        port: 0 lets the system choose.
        streams_max: Answers relayed at once; more get 503.
        queue_max_per_key: Tasks of one API key that may wait; more get 429.
        body_bytes_max: Largest request body.
        preemption: A task of high priority may take the slot of one of low priority, which goes on later.
        keep_days: Nectarflows that ended longer ago are forgotten, with their honeytokens.
    """

    host: str = "127.0.0.1"
    port: Port = 8500
    streams_max: Positive = 2_000
    queue_max_per_key: Positive = 1_000
    body_bytes_max: Positive = 10 * 1024 * 1024
    preemption: bool = True
    keep_days: Positive = 30


class RustbeeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[rustbee]``: what a new worker gets unless it is told otherwise.

    Attributes:
        slots: Tasks at once. More slots serve more people at once, each a little slower, for more memory; 0 takes as
            many as are cheap for the model, 4 to 16.
        context_tokens: Longest prompt plus answer of one slot; memory grows with slots times context.
        llama_server: Path of a llama-server binary to use in place of the built-in engine.
        threads: CPU threads of one engine; 0 lets it choose.
        orphan_ttl_s: After so long without a queen a worker stops and frees its memory.
    """

    slots: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    context_tokens: Annotated[int, msgspec.Meta(ge=256)] = 2_048
    llama_server: str = ""
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    orphan_ttl_s: Annotated[float, msgspec.Meta(gt=0)] = 900.0


class RoutingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[routing]``: how a task's rustbee is chosen; ``swarmesh policy list`` says what each policy does.

    Attributes:
        policy: For every modelcell that is not named below.
        modelcells: ``[routing.modelcells]``: policies by the name of the modelcell.
    """

    policy: PolicyName = PolicyName.SWARM
    modelcells: dict[str, PolicyName] = {}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    queennode: QueenSettings = QueenSettings()
    rustbee: RustbeeSettings = RustbeeSettings()
    routing: RoutingSettings = RoutingSettings()


def load_settings(path: Path) -> Settings:
    """Read the file; defaults when there is none.

    Raises:
        ConfigError: It is not TOML, has an unknown key or policy (named, with the nearest right one) or a wrong value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    _check_keys(path, raw, Settings, "")
    _check_policies(path, raw.get("routing"))
    try:
        return msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_keys(path: Path, raw: dict[str, Any], of: type[msgspec.Struct], where: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(of)}
    for key, value in raw.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)
            raise ConfigError(f"{path}: unknown key {where + key!r}", hint=f"Did you mean {where + near[0]!r}?")
        inner = fields[key]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _check_keys(path, value, inner, f"{where}{key}.")


def _check_policies(path: Path, routing: object) -> None:
    if not isinstance(routing, dict):
        return
    cells = routing.get("modelcells")
    named = {"policy": routing["policy"]} if "policy" in routing else {}
    named |= {f"modelcells.{name}": policy for name, policy in cells.items()} if isinstance(cells, dict) else {}
    for where, name in named.items():
        if isinstance(name, str) and name not in set(PolicyName):
            near = difflib.get_close_matches(name, [each.value for each in PolicyName], n=1, cutoff=0.0)
            raise ConfigError(
                f"{path}: routing.{where}: no policy is called {name!r}", hint=f"Did you mean {near[0]!r}?"
            )
