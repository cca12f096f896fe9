"""GET /api/emd/models and /api/emd/status: the models that EMD can deploy, and the status of each deployment."""

from __future__ import annotations

from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.response_types import EmdModelList, EmdStatus
from server.inference.views import list_emd_deployments, list_emd_models
from server.openapi.operation import ApiOperation, in_both_formats


class EmdModelsHandler(ApiHandler):
    """The models that can be deployed, and the command that deploys each, without a request to AWS."""

    @ApiOperation(
        tag="Models", summary="The models that EMD can deploy", answers=in_both_formats(EmdModelList), errors=(406,)
    )
    async def get(self) -> None:
        kind = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"models": list_emd_models(self.services.runtime)}, kind)


class EmdStatusHandler(ApiHandler):
    """The status of each deployment. Waits only for the first discovery of a region."""

    @ApiOperation(
        tag="Models", summary="How each deployment of EMD's stands", answers=in_both_formats(EmdStatus), errors=(406,)
    )
    async def get(self) -> None:
        kind = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"models": await list_emd_deployments(self.services.runtime)}, kind)
