"""Routes about nectarflows; the two that stream are answered by `swarmesh.queen.flow_routes` and only listed here."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import TaskId
from swarmesh.core.task import TaskStatus
from swarmesh.queen.api.route import JsonResponse, Route, whose
from swarmesh.queen.flows import Flows
from swarmesh.wire.flow import Accepted, FlowView, Submission, TokensView

LIST_LIMIT_DEFAULT = 50
LIST_LIMIT_MAX = 1_000


class FlowList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/nectarflows``, newest first."""

    nectarflows: list[FlowView]


def flow_routes(flows: Flows) -> list[Route]:
    """The rows of the table."""

    async def show(request: Request) -> Response:
        return JsonResponse(await flows.view(_id(request), whose(request)))

    async def cancel(request: Request) -> Response:
        return JsonResponse(await flows.cancel(_id(request), whose(request)))

    async def index(request: Request) -> Response:
        statuses = [_status(text) for text in request.query_params.getlist("status")]
        return JsonResponse(FlowList(await flows.recent(statuses, _limit(request), whose(request))))

    path = "/v2/swarmesh/nectarflow"
    return [
        Route(
            method="POST",
            path=path,
            summary="Submit a nectarflow; with stream: true the answer is an event stream",
            handler=None,
            body=Submission,
            answer=Accepted,
            status=202,
        ),
        Route(
            method="POST",
            path="/v2/tasks",
            summary="Submit a nectarflow (classic)",
            handler=None,
            body=Submission,
            answer=Accepted,
            status=202,
        ),
        Route(
            method="GET",
            path=path + "/{job_id}",
            summary="Show a nectarflow",
            handler=show,
            answer=FlowView,
        ),
        Route(
            method="DELETE",
            path=path + "/{job_id}",
            summary="Cancel a nectarflow",
            handler=cancel,
            answer=FlowView,
        ),
        Route(
            method="GET",
            path="/v2/swarmesh/nectarflows",
            summary="List nectarflows, newest first: those of the key that asks, with the admin key all",
            handler=index,
            answer=FlowList,
        ),
        Route(
            method="GET",
            path="/v2/swarmesh/honeytokens/{job_id}",
            summary="What a nectarflow produced so far; with Accept: text/event-stream its events from ?after=SEQ on",
            handler=None,
            answer=TokensView,
        ),
    ]


def _id(request: Request) -> TaskId:
    return TaskId(str(request.path_params["job_id"]))


def _status(text: str) -> str:
    if text not in set(TaskStatus):
        raise InvalidValueError(f"{text!r} is no status; one of {', '.join(TaskStatus)} is", param="status")
    return text


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIST_LIMIT_DEFAULT))
    if not text.isdecimal() or len(text) > len(str(LIST_LIMIT_MAX)) or not 1 <= int(text) <= LIST_LIMIT_MAX:
        raise InvalidValueError(f"limit is {text!r}; it is 1 to {LIST_LIMIT_MAX}", param="limit")
    return int(text)
