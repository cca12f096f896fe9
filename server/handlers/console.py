"""The console's files, at `/` and `/static/…`.

Only files that exist at the start are served, so no path can name another one. Their content is read for each request,
so that an edit takes effect at once.
"""

from __future__ import annotations

from pathlib import Path

from tornado.web import RequestHandler

from pipeline.errors import NotFound
from server.handlers.base import ApiHandler

ROOT = Path(__file__).resolve().parent.parent / "static"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
DOCS_FOLDER = ROOT / "docs"  # the API's page has a handler of its own
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for path in ROOT.rglob("*")
    if path.suffix in CONTENT_TYPES and not path.is_relative_to(DOCS_FOLDER)
}

# No text of a model, a log or a preset can become a script, a style, a frame or a request to another site.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


class ConsoleHandler(ApiHandler):
    """Serves the page without a key: its requests to the API need one. `path` is relative to the folder."""

    needs_key = False

    def compute_etag(self) -> str | None:
        return RequestHandler.compute_etag(self)

    def get(self, path: str = "index.html") -> None:
        if path not in FILES:
            raise NotFound("There is nothing at this address.")
        file = FILES[path]
        content = file.read_bytes()
        self.set_header("Content-Type", CONTENT_TYPES[file.suffix])
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cache-Control", "no-cache")  # cached, and revalidated each time: an upgrade shows at once
        self.finish(content)

    head = get
