"""The API, described: /api/openapi.json, and a page that shows it. Neither says anything of this server's own."""

from __future__ import annotations

from pathlib import Path

from server import wire
from server.handlers.base import ApiHandler
from server.openapi.document import encoded

PAGE = Path(__file__).parent.parent / "static" / "docs"
FILES = {name: (PAGE / name).read_bytes() for name in ("index.html", "docs.js", "docs.css")}
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class OpenApiHandler(ApiHandler):
    """GET /api/openapi.json."""

    address = "/api/openapi.json"
    needs_key = False

    def get(self) -> None:
        self.set_header("Content-Type", wire.JSON)
        self.finish(encoded(self.application.settings["patterns"]))


class DocsHandler(ApiHandler):
    """GET /api/docs, and the files of its page."""

    address = "/api/docs"
    needs_key = False

    def get(self, name: str = "index.html") -> None:
        self.set_header("Content-Type", KINDS[Path(name).suffix])
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.finish(FILES[name])
