"""One row of the route table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import KeyId
from swarmesh.queen.keys import Identity, Role

Handler = Callable[[Request], Awaitable[Response]]
ADMIN: Final = (Role.ADMIN,)
"""Roles of a route that only the admin's key opens."""


class NameConvertor(Convertor[str]):
    """The rest of a path as a name: any characters, slashes and line breaks too, so that what is odd is told so."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("name", NameConvertor())


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A method and a path, what goes in and what comes out.

    Attributes:
        handler: None for the routes that the relay answers; they are listed for the document only.
        body: Type of the JSON body, None when there is none.
        answer: Type of the JSON answer.
        steps: The answer is an event stream, see `swarmesh.queen.api.steps`; ``answer`` is what its end carries.
        roles: Whose keys open it.
    """

    method: str
    path: str
    summary: str
    handler: Handler | None
    answer: Any
    body: Any = None
    status: int = 200
    steps: bool = False
    roles: tuple[Role, ...] = (Role.ADMIN, Role.CLIENT)


class JsonResponse(Response):
    """A body that msgspec encodes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body's bytes."""
        return msgspec.json.encode(content)


def identity_of(request: Request) -> Identity:
    """Who is asking; the front has checked the key."""
    identity = request.state.identity
    assert isinstance(identity, Identity), "the front identifies every request"
    return identity


def named(request: Request, field: str) -> str:
    """What the path says in place of ``{field:name}``.

    Raises:
        InvalidValueError: Nothing.
    """
    name = str(request.path_params[field])
    if not name.strip():
        raise InvalidValueError(
            f"{field} is empty: the path ends after {request.url.path!r}", hint="Put the name behind it.", param=field
        )
    return name


def whose(request: Request) -> KeyId | None:
    """Of which key the one who is asking may see tasks, see `swarmesh.queen.keys.Identity.sees`."""
    return identity_of(request).sees
