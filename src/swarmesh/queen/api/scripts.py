"""Routes about the policy script."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.queen.api.route import ADMIN, JsonResponse, Route, identity_of
from swarmesh.wire.body import decode_body
from swarmesh.wire.scripts import ReplayView, ScriptChange, ScriptTrial, ScriptView

PATH: Final = "/v2/swarmesh/policies/script"
REPLAY: Final = f"{PATH}/replay"

log = structlog.get_logger("scripts")


class Scriptable(Protocol):
    """What these routes need of `swarmesh.queen.scripts.Scripts`."""

    def view(self) -> ScriptView:
        """What the script is and how it does."""

    async def activate(self, change: ScriptChange) -> ScriptView:
        """Let a script decide from now on.

        Raises:
            SwarmeshError: It has mistakes.
        """

    async def deactivate(self) -> None:
        """Let the built-in policy decide alone.

        Raises:
            NotFoundError: There is no script.
        """

    async def replay(self, trial: ScriptTrial) -> ReplayView:
        """What a script would have changed.

        Raises:
            SwarmeshError: It has mistakes.
        """


_read_change: Final = msgspec.json.Decoder(ScriptChange)
_read_trial: Final = msgspec.json.Decoder(ScriptTrial)


def script_routes(scripts: Scriptable) -> list[Route]:
    """The rows of the table; only the admin's key changes anything."""

    async def show(_request: Request) -> Response:
        return JsonResponse(scripts.view())

    async def activate(request: Request) -> Response:
        change = decode_body(_read_change, await request.body())
        view = await scripts.activate(change)
        log.info("script", name=change.name, key_id=identity_of(request).key_id)
        return JsonResponse(view)

    async def deactivate(request: Request) -> Response:
        await scripts.deactivate()
        log.info("no_script", key_id=identity_of(request).key_id)
        return Response(status_code=204)

    async def replay(request: Request) -> Response:
        return JsonResponse(await scripts.replay(decode_body(_read_trial, await request.body())))

    return [
        Route(
            method="GET",
            path=PATH,
            summary="The policy script: what it is, how it does, and what it did wrong last",
            handler=show,
            answer=ScriptView,
            roles=ADMIN,
        ),
        Route(
            method="PUT",
            path=PATH,
            summary="Let a policy script decide from now on, also after the queennode is started anew",
            handler=activate,
            body=ScriptChange,
            answer=ScriptView,
            roles=ADMIN,
        ),
        Route(
            method="DELETE",
            path=PATH,
            summary="Let the built-in policies decide alone",
            handler=deactivate,
            answer=None,
            status=204,
            roles=ADMIN,
        ),
        Route(
            method="POST",
            path=REPLAY,
            summary="What a policy script would have changed of the decisions of the last day",
            handler=replay,
            body=ScriptTrial,
            answer=ReplayView,
            roles=ADMIN,
        ),
    ]
