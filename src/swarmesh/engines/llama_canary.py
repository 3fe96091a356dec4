"""A little work that shows whether a llama.cpp server still does any."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.engines.engine import EngineDoor
from swarmesh.net.client import HttpClient, UpstreamError

TIMEOUT_S: Final = 30.0
"""Of one question; whoever sends a canary waits less."""
SONG: Final = msgspec.json.encode(
    # Without the cache it cannot be answered from what is there, and leaves nothing there.
    {"prompt": "a", "n_predict": 1, "temperature": 0, "cache_prompt": False, "stream": False}
)


class _Slot(msgspec.Struct, frozen=True):
    is_processing: bool


class LlamaCanary:
    """See `swarmesh.engines.process_engine.Canary`.

    One token is asked for. Where no slot is free it would wait behind the very tasks that are in doubt, so that the
    slots' state has to do; it is told by the server's main loop, between two batches.
    """

    def __init__(self, door: EngineDoor) -> None:
        self._client = HttpClient(door.address, headers=door.headers)

    async def sing(self) -> bool:
        """Any answer, a refusal too, comes from a server that is alive."""
        try:
            status, answer = await self._client.request("GET", "/slots", timeout_s=TIMEOUT_S)
            if status == 200 and any(not slot.is_processing for slot in _read_slots(answer)):
                await self._client.request("POST", "/completion", SONG, timeout_s=TIMEOUT_S)
        except UpstreamError:
            return False
        return True

    def close(self) -> None:
        """See `Canary`."""
        self._client.close()


def _read_slots(answer: bytes) -> list[_Slot]:
    try:
        return msgspec.json.decode(answer, type=list[_Slot])
    except msgspec.DecodeError:
        return []
