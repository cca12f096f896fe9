"""GET /metrics, for Prometheus."""

from __future__ import annotations

from server.handlers.base import ApiHandler
from server.inference import encoders
from server.observability.metrics import CONTENT_TYPE
from server.openapi.operation import ApiOperation


class MetricsHandler(ApiHandler):
    """The numbers, in Prometheus' text format."""

    @ApiOperation(tag="Server", summary="For Prometheus", answers={encoders.TEXT: str})
    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(self.services.metrics.render())
