"""Routes about API keys; they are for the admin's key alone, and none of them shows a key that exists."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.core.ids import KeyId
from swarmesh.queen.api.route import ADMIN, JsonResponse, Route
from swarmesh.wire.body import decode_body
from swarmesh.wire.keys import KeyList, KeyMade, KeyRequest, KeyView

KEYS: Final = "/v2/swarmesh/keys"
NO_STORE: Final = {"cache-control": "no-store"}
"""An answer with a secret in it is nobody's to keep."""

_decoder = msgspec.json.Decoder(KeyRequest)


class Keeper(Protocol):
    """What the routes need of `swarmesh.queen.key_keeper.KeyKeeper`."""

    def views(self) -> list[KeyView]:
        """All keys, the oldest first."""

    async def make(self, request: KeyRequest) -> KeyMade:
        """A new key, which works at once.

        Raises:
            ConflictError: A key has that name already.
        """

    async def revoke(self, key_id: KeyId) -> None:
        """Let a key in no more.

        Raises:
            NotFoundError: There is no such key.
            ConflictError: It is the last that opens everything.
        """


def key_routes(keys: Keeper) -> list[Route]:
    """The rows of the table."""

    async def index(_request: Request) -> Response:
        return JsonResponse(KeyList(keys.views()))

    async def make(request: Request) -> Response:
        made = await keys.make(decode_body(_decoder, await request.body()))
        return JsonResponse(made, status_code=201, headers=NO_STORE)

    async def revoke(request: Request) -> Response:
        await keys.revoke(KeyId(str(request.path_params["key_id"])))
        return Response(status_code=204)

    return [
        Route(method="GET", path=KEYS, summary="List API keys", handler=index, answer=KeyList, roles=ADMIN),
        Route(
            method="POST",
            path=KEYS,
            summary="Make an API key; the answer is the only place where it is shown",
            handler=make,
            body=KeyRequest,
            answer=KeyMade,
            status=201,
            roles=ADMIN,
        ),
        Route(
            method="DELETE",
            path=KEYS + "/{key_id}",
            summary="Revoke an API key at once",
            handler=revoke,
            answer=None,
            status=204,
            roles=ADMIN,
        ),
    ]
