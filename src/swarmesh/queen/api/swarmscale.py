"""Routes about how many rustbees each modelcell has, and why; only the admin's key changes anything."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.queen.api.query import truth
from swarmesh.queen.api.route import ADMIN, JsonResponse, Route, identity_of, named
from swarmesh.wire.body import decode_body
from swarmesh.wire.swarmscale import (
    BoundsChange,
    PauseChange,
    PlacementExplained,
    ScaleExplained,
    ScaleStatus,
    ScaleView,
)

PATH: Final = "/v2/swarmesh/swarmscale"
ONE: Final = PATH + "/{modelcell:name}"
EXPLAIN: Final = "/v2/swarmesh/explain"

_bounds_decoder = msgspec.json.Decoder(BoundsChange)
_pause_decoder = msgspec.json.Decoder(PauseChange)

log = structlog.get_logger("swarmscale")


class Scaling(Protocol):
    """What these routes need of `swarmesh.queen.swarmscale.Swarmscale`; every method may raise `SwarmeshError`."""

    def status(self) -> ScaleStatus:
        """All modelcells that have bounds, rustbees, or something under way."""

    def view(self, name: str) -> ScaleView:
        """One of them."""

    async def set(self, name: str, change: BoundsChange) -> ScaleStatus:
        """Let a modelcell have so many rustbees; every one without bounds of its own, for an empty name."""

    async def unset(self, name: str) -> ScaleStatus:
        """Leave it alone again."""

    async def pause(self, name: str, *, paused: bool) -> ScaleStatus:
        """Start and stop nothing by itself, or do so again."""

    def explain_scale(self, name: str) -> ScaleExplained:
        """How many rustbees a modelcell has, and why not more or fewer."""

    async def explain_placement(self, name: str, *, live: bool) -> PlacementExplained:
        """Where its next rustbee would go now, or where the last one went.

        Raises:
            TooManySurveysError: The hosts are being asked about too many other modelcells now.
        """


def scale_routes(scaling: Scaling) -> list[Route]:
    """The rows of the table."""

    async def index(_request: Request) -> Response:
        return JsonResponse(scaling.status())

    async def show(request: Request) -> Response:
        return JsonResponse(scaling.view(_modelcell(request)))

    async def put(request: Request) -> Response:
        change = decode_body(_bounds_decoder, await request.body())
        status = await scaling.set(_modelcell(request), change)
        _log(request, "bounds_set", min=change.min, max=change.max)
        return JsonResponse(status)

    async def delete(request: Request) -> Response:
        status = await scaling.unset(_modelcell(request))
        _log(request, "bounds_unset")
        return JsonResponse(status)

    async def pause(request: Request) -> Response:
        return await _paused(request, paused=True)

    async def resume(request: Request) -> Response:
        return await _paused(request, paused=False)

    async def _paused(request: Request, *, paused: bool) -> Response:
        change = decode_body(_pause_decoder, await request.body() or b"{}")
        status = await scaling.pause(change.modelcell, paused=paused)
        log.info("paused" if paused else "resumed", modelcell=change.modelcell, key_id=identity_of(request).key_id)
        return JsonResponse(status)

    async def explain_scale(request: Request) -> Response:
        return JsonResponse(scaling.explain_scale(_modelcell(request)))

    async def explain_placement(request: Request) -> Response:
        live = truth(request, "now") if "now" in request.query_params else True
        return JsonResponse(await scaling.explain_placement(_modelcell(request), live=live))

    every, one = "every modelcell without bounds of its own", "one modelcell"
    return [
        Route(
            method="GET",
            path=PATH,
            summary="How many rustbees each modelcell has and may have, and what is under way",
            handler=index,
            answer=ScaleStatus,
        ),
        Route(method="GET", path=ONE, summary="The same of one modelcell", handler=show, answer=ScaleView),
        *(
            route
            for path, whose in ((PATH, every), (ONE, one))
            for route in (
                Route(
                    method="PUT",
                    path=path,
                    summary=f"Say how many rustbees {whose} may have",
                    handler=put,
                    body=BoundsChange,
                    answer=ScaleStatus,
                    roles=ADMIN,
                ),
                Route(
                    method="DELETE",
                    path=path,
                    summary=f"Leave {whose} alone again; rustbees stay as they are",
                    handler=delete,
                    answer=ScaleStatus,
                    roles=ADMIN,
                ),
            )
        ),
        *(
            Route(
                method="POST",
                path=f"{PATH}/{verb}",
                summary=summary,
                handler=handler,
                body=PauseChange,
                answer=ScaleStatus,
                roles=ADMIN,
            )
            for verb, handler, summary in (
                ("pause", pause, "Start and stop nothing by itself, of one modelcell or of any"),
                ("resume", resume, "Start and stop rustbees by itself again"),
            )
        ),
        Route(
            method="GET",
            path=EXPLAIN + "/scale/{modelcell:name}",
            summary="How many rustbees a modelcell has, and why not more or fewer",
            handler=explain_scale,
            answer=ScaleExplained,
        ),
        Route(
            method="GET",
            path=EXPLAIN + "/placement/{modelcell:name}",
            summary="Where a modelcell's next rustbee would go now (now=false: where the last one went), and why",
            handler=explain_placement,
            answer=PlacementExplained,
        ),
    ]


def _modelcell(request: Request) -> str:
    return named(request, "modelcell") if "modelcell" in request.path_params else ""


def _log(request: Request, event: str, **more: object) -> None:
    log.info(event, modelcell=_modelcell(request), key_id=identity_of(request).key_id, **more)
