"""How an agent of this machine says it is, asked on its own socket with its own key: no queen is needed for that."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.liveness import WorkerStatus
from swarmesh.net.address import Address
from swarmesh.net.client import HttpClient, UpstreamError
from swarmesh.wire.spec import WorkerSpec

ANSWER_WAIT_S: Final = 5.0


class _Health(msgspec.Struct, frozen=True):
    status: WorkerStatus = WorkerStatus.STARTING


async def agent_status(spec: WorkerSpec) -> WorkerStatus:
    """How a worker says it is; ``starting`` while it does not answer."""
    agent = HttpClient(Address(path=spec.socket_path), headers=[(b"authorization", f"Bearer {spec.key}".encode())])
    try:
        _, body = await agent.request("GET", "/health", timeout_s=ANSWER_WAIT_S)
        return msgspec.json.decode(body, type=_Health).status
    except (UpstreamError, msgspec.DecodeError):
        return WorkerStatus.STARTING
    finally:
        agent.close()
