"""Routes about model files on the machines of the swarm: does one fit, bring one there, what is there already."""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarmesh.queen.api.route import ADMIN, JsonResponse, Route
from swarmesh.queen.api.steps import OnStep, StepAnswers
from swarmesh.wire.body import decode_body
from swarmesh.wire.hosts import Copied, CopyRequest, FitList, FitRequest, FoundList, ScanRequest

MODELS = "/v2/swarmesh/models"

_fit_decoder = msgspec.json.Decoder(FitRequest)
_copy_decoder = msgspec.json.Decoder(CopyRequest)
_scan_decoder = msgspec.json.Decoder(ScanRequest)


class ModelKeeper(Protocol):
    """What the routes need of `swarmesh.queen.model_files.ModelFilesService`."""

    async def fit(self, request: FitRequest) -> FitList:
        """What a modelcell needs, and where that is free; ModelNotFoundError where nobody knows it."""

    async def copy(self, modelcell: str, to: str, on_step: OnStep) -> Copied:
        """Bring the file to a host; a host that has it gets nothing. What was sent before a break is not sent again."""

    async def scan(self, host: str) -> FoundList:
        """Model files in the usual places of a host, of every host when it is empty."""


def model_routes(models: ModelKeeper, answers: StepAnswers) -> list[Route]:
    """The rows of the table."""

    async def fit(request: Request) -> Response:
        return JsonResponse(await models.fit(decode_body(_fit_decoder, await request.body())))

    async def copy(request: Request) -> Response:
        asked = decode_body(_copy_decoder, await request.body())
        return answers.answer(lambda on_step: models.copy(asked.modelcell, asked.to, on_step), outlives_client=False)

    async def scan(request: Request) -> Response:
        return JsonResponse(await models.scan(decode_body(_scan_decoder, await request.body()).host))

    return [
        Route(
            method="POST",
            path=MODELS + "/fit",
            summary="What a modelcell needs, and on which host it fits",
            handler=fit,
            body=FitRequest,
            answer=FitList,
            roles=ADMIN,
        ),
        Route(
            method="POST",
            path=MODELS + "/copy",
            summary="Copy a modelcell's file to a host",
            handler=copy,
            body=CopyRequest,
            answer=Copied,
            steps=True,
            roles=ADMIN,
        ),
        Route(
            method="POST",
            path=MODELS + "/scan",
            summary="Find model files on hosts",
            handler=scan,
            body=ScanRequest,
            answer=FoundList,
            roles=ADMIN,
        ),
    ]
