"""GET /metrics, for Prometheus."""

from __future__ import annotations

from server.handlers.base import ApiHandler
from server.observability.metrics import CONTENT_TYPE


class MetricsHandler(ApiHandler):
    route_template = "/metrics"

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(self.services.metrics.render())
