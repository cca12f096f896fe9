"""GET /api/models: every model that the presets define, and whether it could answer now."""

from __future__ import annotations

from server import wire
from server.catalogue import list_models
from server.handlers.base import ApiHandler


class ModelsHandler(ApiHandler):
    address = "/api/models"

    async def get(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        self.send({"models": await list_models(self.services.runtime)}, kind)
