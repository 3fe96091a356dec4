"""Taking over an agent that outlived the queen before: nothing is restarted, and nobody is taken for another."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.errors import ConflictError
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.net.address import parse_address
from swarmesh.net.client import HttpClient, UpstreamError
from swarmesh.wire.waggle import Registration

ADOPTION_TIMEOUT_S: Final = 2.0


async def ask_who(agent: AgentFile, location: str, key: str) -> Registration:
    """How the agent behind a file, reached at ``location``, introduces itself.

    Raises:
        UpstreamError: It does not answer, or with something else.
        ConflictError: Another process answers than the one whose file this is.
    """
    client = HttpClient(parse_address(location), headers=[(b"authorization", b"Bearer " + key.encode())])
    try:
        status, body = await client.request("GET", "/health", timeout_s=ADOPTION_TIMEOUT_S)
        if status == 401:
            raise UpstreamError(f"{agent.rustbee_id} refuses the key of this queennode: it was started by another one")
        registration = msgspec.json.decode(body, type=Registration)
    except msgspec.DecodeError as error:
        raise UpstreamError(f"{agent.socket_path} answers something else than an agent: {error}") from error
    finally:
        client.close()
    who = registration
    said = (who.rustbee_id, who.pid, who.boot_id, who.started_at, who.nonce)
    if (agent.rustbee_id, agent.pid, agent.boot_id, agent.started_at, agent.nonce) != said:
        raise ConflictError(f"{agent.socket_path} is answered by another life of {agent.rustbee_id}")
    return registration
