"""The console's files: access, caching, Content-Security-Policy, and static checks of their source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

import pytest

from server.handlers.console import FILES, ROOT
from tests.async_tests import async_test
from tests.raw_http import raw_connection
from tests.running_server import running_server
from tests.server.checks import check_error

KEYS = {"FORGELINE_API_KEYS": "a-key"}
SOURCES = {path: file.read_text(encoding="utf-8") for path, file in FILES.items()}
MODULES = {path: source for path, source in SOURCES.items() if path.endswith(".js")}
MAX_LINES = 300


@async_test
async def test_console_files_need_no_key(tmp_path: Path) -> None:
    async with running_server(tmp_path, environ=KEYS) as server:
        page = await server.get("/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.content.decode()):
            assert (await server.get(path)).status == 200, path
        check_error(await server.get("/api/models"), 401, "unauthorized")


@async_test
async def test_console_files_have_content_type_and_policy(tmp_path: Path) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    async with running_server(tmp_path) as server:
        for path in FILES:
            response = await server.get(f"/static/{path}")
            assert response.headers["Content-Type"].startswith(types[PurePosixPath(path).suffix])
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy


@async_test
async def test_console_file_etag_revalidates(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        first = await server.get("/static/js/main.js")
        assert first.headers["Cache-Control"] == "no-cache"
        unchanged = await server.get("/static/js/main.js", **{"If-None-Match": first.headers["ETag"]})
        assert (unchanged.status, unchanged.content) == (304, b"")
        changed = await server.get("/static/js/main.js", **{"If-None-Match": '"of-yesterday"'})
        assert (changed.status, changed.content) == (200, first.content)


@async_test
async def test_console_head_equals_get(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, raw_connection(server) as connection:
        get_response = await connection.send_request(None, "/", "GET")
        head = await connection.send_request(None, "/", "HEAD")
        assert (head.status, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(get_response.content))
        assert head.headers["ETag"] == get_response.headers["ETag"]


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "js", "js/", "js//main.js", "%00", "/etc/passwd", ".."],
)
@async_test
async def test_console_unknown_path_is_404(tmp_path: Path, path: str) -> None:
    async with running_server(tmp_path) as server, raw_connection(server) as connection:
        check_error(await connection.send_request(None, f"/static/{path}", "GET"), 404, "not_found")


@async_test
async def test_console_unknown_host_is_rejected(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        check_error(await server.get("/", Host="rebound.example"), 403, "forbidden")
        check_error(await server.post("/", {}), 405, "method_not_allowed")


FORBIDDEN = {
    "markup that is made of text": r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc",
    "text that becomes code": r"\beval\b|new Function|setTimeout\(\s*['\"`]|['\"]javascript:",
    "an address elsewhere": r"https?://(?!www\.w3\.org/2000/svg)",
    "a key in an address": r"[?&](api_?)?key=",
}


@pytest.mark.parametrize("label", FORBIDDEN)
def test_console_source_has_no_forbidden_code(label: str) -> None:
    paths = [path for path, source in SOURCES.items() if re.search(FORBIDDEN[label], source, re.IGNORECASE)]
    assert paths == []


def test_console_page_has_no_inline_code() -> None:
    page = SOURCES["index.html"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []


def test_console_modules_are_small_and_described() -> None:
    assert [path for path, source in MODULES.items() if source.count("\n") > MAX_LINES] == []
    assert [path for path, source in MODULES.items() if not source.startswith("// ")] == []


def test_console_modules_are_loaded_and_imports_exist() -> None:
    imports = {path: set(_imports(path, source)) for path, source in MODULES.items()}
    assert set().union(*imports.values()) <= set(MODULES)
    entry_points = set(re.findall(r'<script type="module" src="/static/([^"]+)"', SOURCES["index.html"]))
    assert set(MODULES) - set().union(*imports.values()) <= entry_points


def test_console_files_are_in_package_data() -> None:
    setup = ConfigParser()
    setup.read(ROOT.parent.parent / "setup.cfg")
    patterns = setup["options.package_data"]["server"].split()
    shipped = {path.relative_to(ROOT.parent) for pattern in patterns for path in ROOT.parent.glob(pattern)}
    assert {path.relative_to(ROOT.parent) for path in FILES.values()} <= shipped


def _imports(path: str, source: str) -> Iterator[str]:
    for target in re.findall(r"^import .*?from '([^']+)';", source, re.MULTILINE):
        parts: list[str] = []
        for part in (PurePosixPath(path).parent / target).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        yield "/".join(parts)
