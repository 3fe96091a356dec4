"""What is asked of a session on another host, and seen of it from outside."""

from __future__ import annotations

from typing import Any

import msgspec

from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.wire.session import Hello


async def hello_of(remote: RemoteProcess) -> Hello:
    return await remote.read(Hello)


def call(number: int, name: str, **args: Any) -> bytes:
    return msgspec.json.encode({"id": number, "call": name, "args": args}) + b"\n"
