"""Routes about the swarm as a whole, and the relay's routes for the document."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from swarmesh import __version__
from swarmesh.core.ids import ModelName
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.swarm import Swarm
from swarmesh.queen.api.route import JsonResponse, Route
from swarmesh.wire.openai import ChatRequest, CompletionRequest, EmbeddingRequest, ModelEntry, ModelList
from swarmesh.wire.views import Health


def swarm_routes(
    swarm: Swarm,
    *,
    on_offer: Callable[[], list[ModelName]],
    url: Callable[[], str],
    started_at: float,
    streams: Callable[[], int],
) -> list[Route]:
    """The rows of the table. ``started_at`` (Unix seconds) is also what models give as their time of creation."""

    async def health(_request: Request) -> Response:
        statuses = Counter(worker.status.value for worker in swarm.fleet)
        serving = statuses[WorkerStatus.HEALTHY.value] + statuses[WorkerStatus.SUSPECT.value]
        return JsonResponse(
            Health(
                status="healthy" if serving else "no_rustbees",
                version=__version__,
                pid=os.getpid(),
                uptime_s=round(time.time() - started_at, 3),
                url=url(),
                rustbees=dict(statuses),
                modelcells=list(swarm.fleet.models()),
                queue_depth=len(swarm.dispatcher.queue),
                streams=streams(),
            )
        )

    async def models(_request: Request) -> Response:
        return JsonResponse(ModelList([ModelEntry(model, int(started_at)) for model in on_offer()]))

    hot: list[tuple[Any, str]] = [
        (ChatRequest, "Chat completions, as OpenAI's"),
        (CompletionRequest, "Completions, as OpenAI's"),
        (EmbeddingRequest, "Embeddings, as OpenAI's"),
    ]
    return [
        Route(method="GET", path="/v2/swarmesh/health", summary="Health", handler=health, answer=Health),
        Route(method="GET", path="/v1/models", summary="Models, as OpenAI's", handler=models, answer=ModelList),
        *(
            Route(method="POST", path=kind.target.decode(), summary=summary, handler=None, body=kind, answer=None)
            for kind, summary in hot
        ),
    ]
