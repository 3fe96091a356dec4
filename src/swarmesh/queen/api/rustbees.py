"""Routes about workers: what people ask (R-03, R-04), and what workers report (R-08, R-09, R-11, R-13)."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.core.ids import LOCAL_HOST, WorkerId
from swarmesh.core.last_words import without_last_words
from swarmesh.queen.api.query import grace_s
from swarmesh.queen.api.route import ADMIN, Handler, JsonResponse, Route, identity_of
from swarmesh.queen.foreign import ForeignServers
from swarmesh.queen.keys import Role
from swarmesh.queen.workers import Workers
from swarmesh.store.store import Store
from swarmesh.wire.body import decode_body
from swarmesh.wire.spec import Backend
from swarmesh.wire.views import AlarmList, AlarmView, RustbeeList, RustbeeView, Spawned, SpawnRequest, WaggleList
from swarmesh.wire.waggle import Alarm, Registration, Waggle, WaggleAnswer

ALARMS_SHOWN = 100

_spawn_decoder = msgspec.json.Decoder(SpawnRequest)
_registration_decoder = msgspec.json.Decoder(Registration)
_waggle_decoder = msgspec.json.Decoder(Waggle)
_alarm_decoder = msgspec.json.Decoder(Alarm)

REPORTERS = (Role.ADMIN, Role.WORKER)


def rustbee_routes(workers: Workers, foreign: ForeignServers, store: Store) -> list[Route]:
    """The rows of the table for what people ask about workers."""

    async def index(request: Request) -> Response:
        return JsonResponse(RustbeeList([_shown_to(request, view) for view in workers.views()]))

    async def show(request: Request) -> Response:
        return JsonResponse(_shown_to(request, workers.view(_id(request))))

    async def spawn(request: Request) -> Response:
        asked = decode_body(_spawn_decoder, await request.body())
        adopts = asked.type is Backend.OPENAI
        worker_id = await foreign.adopt(asked) if adopts else await workers.spawn(asked)
        return JsonResponse(Spawned(worker_id, workers.view(worker_id).status), status_code=202)

    async def stop(request: Request) -> Response:
        worker_id = _id(request)
        workers.stop(worker_id, grace_s=grace_s(request))
        return JsonResponse(workers.view(worker_id), status_code=202)

    async def waggles(_request: Request) -> Response:
        return JsonResponse(WaggleList(workers.waggle_views()))

    async def alarms(_request: Request) -> Response:
        rows = await store.alarms(ALARMS_SHOWN)
        views = [AlarmView(row.worker_id or "", row.code, row.message, row.at_ms / 1000) for row in rows]
        return JsonResponse(AlarmList(views))

    return [
        Route(method="GET", path="/v2/swarmesh/rustbees", summary="List rustbees", handler=index, answer=RustbeeList),
        Route(
            method="POST",
            path="/v2/swarmesh/rustbees",
            summary="Start a rustbee, or adopt a server",
            handler=spawn,
            body=SpawnRequest,
            answer=Spawned,
            status=202,
            roles=ADMIN,
        ),
        Route(
            method="GET",
            path="/v2/swarmesh/rustbees/{rustbee_id}",
            summary="Show a rustbee",
            handler=show,
            answer=RustbeeView,
        ),
        Route(
            method="DELETE",
            path="/v2/swarmesh/rustbees/{rustbee_id}",
            summary="Drain and stop a rustbee",
            handler=stop,
            answer=RustbeeView,
            status=202,
            roles=ADMIN,
        ),
        Route(method="GET", path="/v2/swarmesh/waggles", summary="Last waggles", handler=waggles, answer=WaggleList),
        Route(
            method="GET",
            path="/v2/swarmesh/alarms",
            summary="Last alarms",
            handler=alarms,
            answer=AlarmList,
            roles=ADMIN,
        ),
    ]


def _shown_to(request: Request, view: RustbeeView) -> RustbeeView:
    """For others than its owner without what its engine printed last."""
    if view.error is None or identity_of(request).role is Role.ADMIN:
        return view
    error = msgspec.structs.replace(view.error, message=without_last_words(view.error.message))
    return msgspec.structs.replace(view, error=error)


def report_routes(workers: Workers) -> list[Route]:
    """The rows of the table for what workers themselves say."""

    def _must_speak_for(request: Request, worker_id: str) -> str:
        who = identity_of(request)
        who.must_speak_for(worker_id)
        if who.host:
            workers.homes.check(WorkerId(worker_id), who.host)
        return who.host

    async def register(request: Request) -> Response:
        registration = decode_body(_registration_decoder, await request.body())
        host = _must_speak_for(request, registration.rustbee_id)
        return JsonResponse(await workers.register(registration, host or LOCAL_HOST))

    async def waggle(request: Request) -> Response:
        report = decode_body(_waggle_decoder, await request.body())
        _must_speak_for(request, report.rustbee_id)
        return JsonResponse(workers.waggle(report))

    async def alarm(request: Request) -> Response:
        cry = decode_body(_alarm_decoder, await request.body())
        _must_speak_for(request, cry.rustbee_id)
        workers.alarm(cry)
        return JsonResponse(WaggleAnswer(acknowledged=True, status="dead", next_waggle=1.0))

    async def goodbye(request: Request) -> Response:
        worker_id = _id(request)
        _must_speak_for(request, worker_id)
        workers.goodbye(worker_id, f"{worker_id} said goodbye")
        return Response(status_code=204)

    return [
        _report_route("/v2/swarmesh/rustbee", "Register a rustbee", register, Registration),
        _report_route("/v2/nodes/register", "Register a rustbee (classic)", register, Registration),
        _report_route("/v2/swarmesh/waggleproto", "Waggle", waggle, Waggle),
        _report_route("/waggle", "Waggle (classic)", waggle, Waggle),
        _report_route("/callback/error", "Raise an alarm", alarm, Alarm),
        Route(
            method="DELETE",
            path="/v2/swarmesh/rustbee/{rustbee_id}",
            summary="Say goodbye",
            handler=goodbye,
            answer=None,
            status=204,
            roles=REPORTERS,
        ),
    ]


def _report_route(path: str, summary: str, handler: Handler, body: type[msgspec.Struct]) -> Route:
    return Route(
        method="POST", path=path, summary=summary, handler=handler, body=body, answer=WaggleAnswer, roles=REPORTERS
    )


def _id(request: Request) -> WorkerId:
    return WorkerId(str(request.path_params["rustbee_id"]))
