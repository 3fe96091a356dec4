"""Routes about the machines of the swarm: look at them, add them, empty them, let them go."""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.queen.api.query import grace_s, truth
from swarmesh.queen.api.route import ADMIN, JsonResponse, Route
from swarmesh.queen.api.steps import OnStep, StepAnswers
from swarmesh.wire.body import decode_body
from swarmesh.wire.hosts import CheckList, CheckView, HostAddRequest, HostList, HostView

HOSTS = "/v2/swarmesh/hosts"

_add_decoder = msgspec.json.Decoder(HostAddRequest)


class HostKeeper(Protocol):
    """What the routes need of `swarmesh.queen.host_keeper.HostKeeper`.

    Each method that takes a name raises NotFoundError for an unknown one.
    """

    async def views(self) -> list[HostView]:
        """All hosts as they are known now, the queen's own first."""

    async def view(self, name: str) -> HostView:
        """One host, measured now if it can be reached."""

    async def add(self, request: HostAddRequest, on_step: OnStep) -> HostView:
        """Check, install and connect; of a host that is there: check, repair, upgrade.

        Raises:
            InvalidValueError: A name that is none.
            SwarmeshError: Whatever stopped it; nothing is left behind.
        """

    async def remove(
        self, name: str, on_step: OnStep, *, keep_models: bool, grace_s: float, forget: bool = False
    ) -> None:
        """Stop its workers, take away what was installed, forget it; ``forget`` lets go of one out of reach."""

    async def drain(self, name: str, grace_s: float) -> HostView:
        """Start nothing new there and let its workers end; returns before they have."""

    async def resume(self, name: str) -> HostView:
        """It takes workers again."""

    async def checks(self, name: str) -> list[CheckView]:
        """What stops, or could stop, that machine from working."""


def host_routes(hosts: HostKeeper, answers: StepAnswers) -> list[Route]:
    """The rows of the table."""
    return [*_looking(hosts), *_changing(hosts, answers)]


def _looking(hosts: HostKeeper) -> list[Route]:
    async def index(_request: Request) -> Response:
        return JsonResponse(HostList(await hosts.views()))

    async def show(request: Request) -> Response:
        return JsonResponse(await hosts.view(_name(request)))

    async def checks(request: Request) -> Response:
        return JsonResponse(CheckList(await hosts.checks(_name(request))))

    return [
        Route(method="GET", path=HOSTS, summary="List hosts", handler=index, answer=HostList),
        Route(method="GET", path=HOSTS + "/{name}", summary="Show a host", handler=show, answer=HostView),
        Route(
            method="GET",
            path=HOSTS + "/{name}/checks",
            summary="Check what a host has and lacks",
            handler=checks,
            answer=CheckList,
            roles=ADMIN,
        ),
    ]


def _changing(hosts: HostKeeper, answers: StepAnswers) -> list[Route]:
    # A host that is half added or half removed is worse than either, so both go on when whoever asked has left.
    async def add(request: Request) -> Response:
        asked = decode_body(_add_decoder, await request.body())
        return answers.answer(lambda on_step: hosts.add(asked, on_step), outlives_client=True)

    async def remove(request: Request) -> Response:
        name, keep_models, grace = _name(request), truth(request, "keep_models"), grace_s(request)
        forget = truth(request, "forget")
        return answers.answer(
            lambda on_step: hosts.remove(name, on_step, keep_models=keep_models, grace_s=grace, forget=forget),
            outlives_client=True,
        )

    async def drain(request: Request) -> Response:
        return JsonResponse(await hosts.drain(_name(request), grace_s(request)), status_code=202)

    async def resume(request: Request) -> Response:
        return JsonResponse(await hosts.resume(_name(request)))

    one = HOSTS + "/{name}"
    return [
        Route(
            method="POST",
            path=HOSTS,
            summary="Add a host; one that is there is checked, repaired and upgraded",
            handler=add,
            body=HostAddRequest,
            answer=HostView,
            steps=True,
            roles=ADMIN,
        ),
        Route(
            method="DELETE",
            path=one,
            summary="Remove a host and what was installed there",
            handler=remove,
            answer=None,
            steps=True,
            roles=ADMIN,
        ),
        Route(
            method="POST",
            path=one + "/drain",
            summary="Empty a host: nothing new is started there",
            handler=drain,
            answer=HostView,
            status=202,
            roles=ADMIN,
        ),
        Route(
            method="POST",
            path=one + "/resume",
            summary="Let a host take rustbees again",
            handler=resume,
            answer=HostView,
            roles=ADMIN,
        ),
    ]


def _name(request: Request) -> str:
    return str(request.path_params["name"])
