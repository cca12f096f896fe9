"""GET /api/emd/models and /api/emd/status: the models that EMD can deploy, and how each deployment stands."""

from __future__ import annotations

from server import wire
from server.catalogue import list_emd_deployments, list_emd_models
from server.handlers.base import ApiHandler


class EmdModelsHandler(ApiHandler):
    """What can be deployed, and by which line. AWS is not asked."""

    address = "/api/emd/models"

    async def get(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        self.send({"models": list_emd_models(self.services.runtime)}, kind)


class EmdStatusHandler(ApiHandler):
    """Waits only for the first look at a region."""

    address = "/api/emd/status"

    async def get(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        self.send({"models": await list_emd_deployments(self.services.runtime)}, kind)
