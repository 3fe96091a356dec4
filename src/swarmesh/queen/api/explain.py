"""Routes that say why."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from swarmesh.core.ids import KeyId
from swarmesh.queen.api.route import JsonResponse, Route, named, whose
from swarmesh.wire.explain import RefusalExplained, TaskExplained


class Explaining(Protocol):
    """What these routes need of `swarmesh.queen.explain.Explainer`."""

    def task(self, name: str, key_id: KeyId | None = None) -> TaskExplained:
        """Why a task went where it went; with ``key_id`` one of another key counts as not known.

        Raises:
            NotFoundError: No decision about it is kept.
        """

    def refusal(self, name: str, key_id: KeyId | None = None) -> RefusalExplained:
        """Why a task was refused or given up; with ``key_id`` one of another key counts as not known.

        Raises:
            NotFoundError: It was not, or that is forgotten.
        """


def explain_routes(explainer: Explaining) -> list[Route]:
    """The rows of the table."""

    async def task(request: Request) -> Response:
        return JsonResponse(explainer.task(named(request, "task_id"), whose(request)))

    async def refusal(request: Request) -> Response:
        return JsonResponse(explainer.refusal(named(request, "task_id"), whose(request)))

    return [
        Route(
            method="GET",
            path="/v2/swarmesh/explain/task/{task_id:name}",
            summary="Why a task went where it went: by its job id, its x-swarmesh-task header, or the id of its answer",
            handler=task,
            answer=TaskExplained,
        ),
        Route(
            method="GET",
            path="/v2/swarmesh/explain/refusal/{task_id:name}",
            summary="Why a task was refused or given up: by the x-swarmesh-task header of the refusal, or its job id",
            handler=refusal,
            answer=RefusalExplained,
        ),
    ]
