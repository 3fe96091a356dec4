"""The route that cuts a worker off: for admins, and never for long."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from swarmesh.core.errors import NotFoundError
from swarmesh.core.ids import KeyId, WorkerId
from swarmesh.queen.api.app import control_app
from swarmesh.queen.api.chaos import chaos_routes
from swarmesh.queen.keys import Identity, Role

CUT = "/v2/swarmesh/rustbees/rustbee-1/cut"


class Network:
    """Notes what it was asked to cut."""

    def __init__(self) -> None:
        self.cuts: list[tuple[str, float]] = []

    def cut(self, worker_id: WorkerId, seconds: float) -> None:
        if worker_id != "rustbee-1":
            raise NotFoundError(f"no rustbee is called {worker_id!r}")
        self.cuts.append((worker_id, seconds))


@pytest.fixture
def network() -> Network:
    return Network()


async def ask(network: Network, path: str, body: Any, role: Role = Role.ADMIN) -> httpx.Response:
    app = control_app(chaos_routes(network))

    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"identity": Identity(KeyId(role), role, "rustbee-1" if role is Role.WORKER else "")}
        await app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(identified), base_url="http://queen") as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("seconds", [0.1, 5, 300])
async def test_a_worker_is_cut_off_for_a_while(network: Network, seconds: float) -> None:
    answer = await ask(network, CUT, {"seconds": seconds})
    assert (answer.status_code, answer.json()) == (202, {"rustbee_id": "rustbee-1", "seconds": float(seconds)})
    assert network.cuts == [("rustbee-1", seconds)]


@pytest.mark.parametrize(
    "body", [{}, {"seconds": 0.09}, {"seconds": 300.1}, {"seconds": "5"}, {"seconds": 5, "more": 1}, [5]], ids=str
)
async def test_what_is_no_cut(network: Network, body: Any) -> None:
    answer = await ask(network, CUT, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"
    assert network.cuts == []


@pytest.mark.parametrize("role", [Role.CLIENT, Role.WORKER])
async def test_only_an_admin_may(network: Network, role: Role) -> None:
    answer = await ask(network, CUT, {"seconds": 5}, role)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert network.cuts == []


async def test_a_worker_that_is_not_there(network: Network) -> None:
    answer = await ask(network, "/v2/swarmesh/rustbees/rustbee-9/cut", {"seconds": 5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
