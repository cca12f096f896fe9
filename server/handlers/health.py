"""Liveness and readiness, for load balancers and supervisors."""

from __future__ import annotations

from pipeline.errors import Unavailable
from server.config import VERSION
from server.handlers.base import ApiHandler


class HealthHandler(ApiHandler):
    route_template = "/healthz"
    public = True

    def get(self) -> None:
        self.send_body({"status": "ok", "version": VERSION})

    head = get


class ReadyHandler(ApiHandler):
    route_template = "/readyz"
    public = True

    def get(self) -> None:
        if not self.services.ready:
            raise Unavailable("The server is starting, or shutting down.")
        self.send_body({"status": "ready"})

    head = get
