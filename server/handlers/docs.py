"""The API's description, /api/openapi.json, and a page that shows it. Neither depends on this server's presets."""

from __future__ import annotations

from pathlib import Path

from server.handlers.base import ApiHandler
from server.inference import encoders
from server.openapi.document import encode_document
from server.openapi.operation import ApiOperation

FOLDER = Path(__file__).parent.parent / "static" / "docs"
FILES = {name: (FOLDER / name).read_bytes() for name in ("index.html", "docs.js", "docs.css")}
CONTENT_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class OpenApiHandler(ApiHandler):
    """GET /api/openapi.json."""

    needs_key = False

    @ApiOperation(tag="Server", summary="This description", answers={encoders.JSON: dict})
    def get(self) -> None:
        self.set_header("Content-Type", encoders.JSON)
        self.finish(encode_document(self.application.settings["routes"]))


class DocsFileHandler(ApiHandler):
    """The files of the page."""

    needs_key = False

    def get(self, name: str) -> None:
        self.send_file(name)

    def send_file(self, name: str) -> None:
        self.set_header("Content-Type", CONTENT_TYPES[Path(name).suffix])
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.finish(FILES[name])


class DocsHandler(DocsFileHandler):
    """GET /api/docs."""

    @ApiOperation(tag="Server", summary="A page that shows it", answers={"text/html": str})
    def get(self, name: str = "index.html") -> None:
        self.send_file(name)
