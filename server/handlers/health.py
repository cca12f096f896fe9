"""Whether the server lives, and whether it takes work: for load balancers and supervisors."""

from __future__ import annotations

from pipeline.errors import Unavailable
from server.handlers.base import ApiHandler


class HealthHandler(ApiHandler):
    address = "/healthz"
    open_to_all = True

    def get(self) -> None:
        self.send({"status": "ok"})


class ReadyHandler(ApiHandler):
    address = "/readyz"
    open_to_all = True

    def get(self) -> None:
        if not self.services.ready:
            raise Unavailable("The server is starting, or shutting down.")
        self.send({"status": "ready"})
