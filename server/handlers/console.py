"""The console's files, at `/` and `/static/…`: the one thing here that is for eyes.

Only the files that are there at start can be asked for, so no address can name another; what they hold is read each
time, so that an edit counts at once.
"""

from __future__ import annotations

from pathlib import Path

from tornado.web import RequestHandler

from pipeline.errors import NotFound
from server.handlers.base import ApiHandler

ROOT = Path(__file__).resolve().parent.parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
OTHERS = ROOT / "docs"  # the page of the API, which has a handler of its own
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for path in ROOT.rglob("*")
    if path.suffix in TYPES and not path.is_relative_to(OTHERS)
}

# Nothing that a model, a log or a preset says can become a script, a style, a frame or a call to another place.
POLICY = "; ".join(
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
    """The page itself needs no key: what it asks for does. `path`: of the file, relative to the folder."""

    address = "/static/{path}"
    needs_key = False

    def compute_etag(self) -> str | None:
        return RequestHandler.compute_etag(self)

    def get(self, path: str = "index.html") -> None:
        if path not in FILES:
            raise NotFound("There is nothing at this address.")
        file = FILES[path]
        content = file.read_bytes()
        self.set_header("Content-Type", TYPES[file.suffix])
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cache-Control", "no-cache")  # kept, and asked about each time: an upgrade shows at once
        self.finish(content)

    head = get
