"""Routes about the policies by which rustbees are chosen."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.queen.api.route import ADMIN, JsonResponse, Route, identity_of
from swarmesh.wire.body import decode_body
from swarmesh.wire.policies import PolicyChange, PolicyList, PolicyView

PATH: Final = "/v2/swarmesh/policies"

log = structlog.get_logger("policies")


class Choosable(Protocol):
    """What these routes need of `swarmesh.queen.policies.Policies`."""

    def views(self) -> list[PolicyView]:
        """Every policy there is."""

    def use(self, change: PolicyChange) -> list[PolicyView]:
        """Choose by another policy.

        Raises:
            SwarmeshError: There is no such policy or modelcell.
        """


_decoder = msgspec.json.Decoder(PolicyChange)


def policy_routes(policies: Choosable) -> list[Route]:
    """The rows of the table; only the admin's key changes anything."""

    async def index(_request: Request) -> Response:
        return JsonResponse(PolicyList(policies.views()))

    async def use(request: Request) -> Response:
        change = decode_body(_decoder, await request.body())
        views = policies.use(change)
        log.info("policy", policy=change.policy, modelcell=change.modelcell, key_id=identity_of(request).key_id)
        return JsonResponse(PolicyList(views))

    return [
        Route(
            method="GET",
            path=PATH,
            summary="The policies by which rustbees are chosen, and which one holds for what",
            handler=index,
            answer=PolicyList,
        ),
        Route(
            method="PUT",
            path=PATH,
            summary="Choose by another policy until the queennode is started anew",
            handler=use,
            body=PolicyChange,
            answer=PolicyList,
            roles=ADMIN,
        ),
    ]
