"""GET /api/emd/models and /api/emd/status: the models that EMD can deploy, and the status of each deployment."""

from __future__ import annotations

from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.views import list_emd_deployments, list_emd_models


class EmdModelsHandler(ApiHandler):
    """The models that can be deployed, and the command that deploys each, without a request to AWS."""

    route_template = "/api/emd/models"

    async def get(self) -> None:
        kind = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"models": list_emd_models(self.services.runtime)}, kind)


class EmdStatusHandler(ApiHandler):
    """The status of each deployment. Waits only for the first discovery of a region."""

    route_template = "/api/emd/status"

    async def get(self) -> None:
        kind = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"models": await list_emd_deployments(self.services.runtime)}, kind)
