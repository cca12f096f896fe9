"""GET /api/models: every model of the presets, and whether it is available."""

from __future__ import annotations

from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.views import list_models


class ModelsHandler(ApiHandler):
    """The list of models."""

    route_template = "/api/models"

    async def get(self) -> None:
        kind = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"models": await list_models(self.services.runtime, self.services.recent_answers)}, kind)
