"""The ASGI application of the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from swarmesh.core.errors import InternalError, MethodNotAllowedError, NotFoundError, SwarmeshError
from swarmesh.queen.api.openapi import document
from swarmesh.queen.api.route import JsonResponse, Route, identity_of
from swarmesh.wire.errors import ErrorEnvelope, error_body

log = structlog.get_logger("api")


def control_app(routes: list[Route]) -> Starlette:
    """The application for a table of routes, with its OpenAPI document at ``/openapi.json``."""
    described = document(routes)

    async def openapi(_request: Request) -> Response:
        return JsonResponse(described)

    served = [StarletteRoute(route.path, partial(_checked, route), methods=[route.method]) for route in routes]
    app = Starlette(
        routes=[*served, StarletteRoute("/openapi.json", openapi)],
        exception_handlers={SwarmeshError: _swarmesh_error, HTTPException: _http_error, Exception: _any_error},
    )
    app.router.redirect_slashes = False  # A redirect would lead to whatever host the client says this is.
    return app


async def _checked(route: Route, request: Request) -> Response:
    identity_of(request).must_be(*route.roles)
    if route.handler is None:  # The relay takes these; what it leaves over is a HEAD in place of the GET.
        raise MethodNotAllowedError(f"{request.method} {request.url.path} is not a route; {route.method} is")
    return await route.handler(request)


def _answer(error: SwarmeshError, headers: Mapping[str, str] | None = None) -> Response:
    all_headers = dict(headers or {})
    if error.retry_after_s is not None:
        all_headers["retry-after"] = str(error.retry_after_s)
    return JsonResponse(ErrorEnvelope(error_body(error)), status_code=error.status, headers=all_headers)


async def _swarmesh_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SwarmeshError), "registered for it"
    return _answer(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    where = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        return _answer(MethodNotAllowedError(f"{where} is not a route, though the path is"), error.headers)
    return _answer(NotFoundError(f"{where} is not a route here", hint="GET /openapi.json lists them."))


async def _any_error(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, exc_info=error)
    return _answer(InternalError())
