"""GET /api/models: every model of the presets, and whether it is available."""

from __future__ import annotations

from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.response_types import ModelList
from server.inference.views import list_models
from server.openapi.operation import ApiOperation, in_both_formats


class ModelsHandler(ApiHandler):
    """The list of models."""

    @ApiOperation(
        tag="Models",
        summary="Every model, and whether it could answer now",
        answers=in_both_formats(ModelList),
        errors=(406,),
    )
    async def get(self) -> None:
        kind = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"models": await list_models(self.services.runtime, self.services.recent_answers)}, kind)
