"""The OpenAPI document of the route table."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from swarmesh import __version__
from swarmesh.queen.api.route import Route
from swarmesh.wire.errors import ErrorEnvelope
from swarmesh.wire.hosts import Step

_PARAMETER = re.compile(r"{(\w+)(?::(?:path|name))?}")
"""In a path; one of the kind ``path`` or ``name`` may have slashes in it, which the document has no word for."""


def document(routes: list[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 for the routes; the shapes come from the very types that encode and decode them."""
    types = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        [*types, Step, ErrorEnvelope], ref_template="#/components/schemas/{name}"
    )
    *_, step, error = schemas
    by_type = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        body = next(by_type) if route.body is not None else None
        answer = next(by_type) if route.answer is not None else {}
        paths.setdefault(_plain(route.path), {})[route.method.lower()] = _operation(
            route, body, _steps(step, answer, error) if route.steps else _json(answer), error
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Swarmesh", "version": __version__},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, body: Any, content: Any, error: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z0-9]+', '_', _plain(route.path).lower())}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(route.path)
        ],
        "responses": {
            str(route.status): {"description": "Done.", "content": content},
            "default": {"description": "An error.", "content": _json(error)},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _plain(path: str) -> str:
    return _PARAMETER.sub(r"{\1}", path)


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _steps(step: Any, answer: Any, error: Any) -> dict[str, Any]:
    says = "Data of the events: of each 'step', and of the last one, which is 'done' or 'error'."
    return {"text/event-stream": {"schema": {"description": says, "anyOf": [step, answer, error]}}}
