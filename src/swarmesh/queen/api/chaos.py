"""The route for a drill: a network that breaks between the queen and one worker, and heals by itself."""

from __future__ import annotations

from typing import Annotated, Final, Protocol

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.core.ids import WorkerId
from swarmesh.queen.api.route import ADMIN, JsonResponse, Route, identity_of
from swarmesh.wire.body import decode_body

CUT_S_MIN: Final = 0.1
CUT_S_MAX: Final = 300.0
"""A drill that is forgotten must not become an outage."""

log = structlog.get_logger("chaos")


class CutRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/rustbees/{rustbee_id}/cut``."""

    seconds: Annotated[float, msgspec.Meta(ge=CUT_S_MIN, le=CUT_S_MAX)]


class Cut(msgspec.Struct, frozen=True):
    """The answer: from now on, for so long, nothing passes between the queen and this worker."""

    rustbee_id: str
    seconds: float


class Severable(Protocol):
    """What the drill needs of `swarmesh.queen.workers.Workers`."""

    def cut(self, worker_id: WorkerId, seconds: float) -> None:
        """Drop everything to and from a worker for so long.

        Raises:
            NotFoundError: There is no such worker.
        """


_decoder = msgspec.json.Decoder(CutRequest)


def chaos_routes(workers: Severable) -> list[Route]:
    """The rows of the table for drills; they harm, so only the admin's key opens them."""

    async def cut(request: Request) -> Response:
        worker_id = WorkerId(str(request.path_params["rustbee_id"]))
        asked = decode_body(_decoder, await request.body())
        workers.cut(worker_id, asked.seconds)
        log.warning("cut", rustbee_id=worker_id, seconds=asked.seconds, key_id=identity_of(request).key_id)
        return JsonResponse(Cut(worker_id, asked.seconds), status_code=202)

    return [
        Route(
            method="POST",
            path="/v2/swarmesh/rustbees/{rustbee_id}/cut",
            summary="Drill: drop everything to and from a rustbee for some seconds",
            handler=cut,
            body=CutRequest,
            answer=Cut,
            status=202,
            roles=ADMIN,
        )
    ]
