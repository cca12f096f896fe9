"""Liveness and readiness, for load balancers and supervisors."""

from __future__ import annotations

from pipeline.errors import Unavailable
from server.config import VERSION
from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.response_types import Health
from server.openapi.operation import ApiOperation


class HealthHandler(ApiHandler):
    public = True

    @ApiOperation(tag="Server", summary="Whether it lives", answers={encoders.JSON: Health})
    def get(self) -> None:
        self.send_body({"status": "ok", "version": VERSION})

    head = get


class ReadyHandler(ApiHandler):
    public = True

    @ApiOperation(tag="Server", summary="Whether it takes work", answers={encoders.JSON: Health}, errors=(503,))
    def get(self) -> None:
        if not self.services.ready:
            raise Unavailable("The server is starting, or shutting down.")
        self.send_body({"status": "ready"})

    head = get
