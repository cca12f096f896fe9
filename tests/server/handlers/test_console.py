"""The console's files: who may have them, how they are kept, and what their policy allows; and their source, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

import pytest

from server.handlers.console import FILES, ROOT
from tests.aio import asynchronous
from tests.rawhttp import connected
from tests.server.checks import check_error
from tests.serving import serving

KEYS = {"FORGELINE_API_KEYS": "a-key"}
SOURCES = {path: file.read_text(encoding="utf-8") for path, file in FILES.items()}
MODULES = {path: source for path, source in SOURCES.items() if path.endswith(".js")}
MAX_LINES = 300


@asynchronous
async def test_the_page_and_its_files_need_no_key(tmp_path: Path) -> None:
    async with serving(tmp_path, environ=KEYS) as server:
        page = await server.get("/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.content.decode()):
            assert (await server.get(path)).status == 200, path
        check_error(await server.get("/api/models"), 401, "unauthorized")


@asynchronous
async def test_every_file_says_what_it_is_and_what_it_may_do(tmp_path: Path) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    async with serving(tmp_path) as server:
        for path in FILES:
            answer = await server.get(f"/static/{path}")
            assert answer.headers["Content-Type"].startswith(types[PurePosixPath(path).suffix])
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy


@asynchronous
async def test_a_file_is_kept_and_asked_about_each_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        first = await server.get("/static/js/main.js")
        assert first.headers["Cache-Control"] == "no-cache"
        again = await server.get("/static/js/main.js", **{"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.content) == (304, b"")
        other = await server.get("/static/js/main.js", **{"If-None-Match": '"of-yesterday"'})
        assert (other.status, other.content) == (200, first.content)


@asynchronous
async def test_head_tells_what_get_would(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server) as line:
        whole = await line.ask(None, "/", "GET")
        head = await line.ask(None, "/", "HEAD")
        assert (head.status, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(whole.content))
        assert head.headers["ETag"] == whole.headers["ETag"]


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "js", "js/", "js//main.js", "%00", "/etc/passwd", ".."],
)
@asynchronous
async def test_an_address_that_names_no_file_of_it_is_404(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as server, connected(server) as line:
        check_error(await line.ask(None, f"/static/{path}", "GET"), 404, "not_found")


@asynchronous
async def test_a_name_that_is_not_this_servers_is_refused_the_page_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        check_error(await server.get("/", Host="rebound.example"), 403, "forbidden")
        check_error(await server.post("/", {}), 405, "method_not_allowed")


FORBIDDEN = {
    "markup that is made of text": r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc",
    "text that becomes code": r"\beval\b|new Function|setTimeout\(\s*['\"`]|['\"]javascript:",
    "an address elsewhere": r"https?://(?!www\.w3\.org/2000/svg)",
    "a key in an address": r"[?&](api_?)?key=",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_in_the_source_is(what: str) -> None:
    found = [path for path, source in SOURCES.items() if re.search(FORBIDDEN[what], source, re.IGNORECASE)]
    assert found == []


def test_the_page_has_no_script_style_or_listener_of_its_own() -> None:
    page = SOURCES["index.html"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []


def test_every_module_is_small_and_says_what_it_is() -> None:
    assert [path for path, source in MODULES.items() if source.count("\n") > MAX_LINES] == []
    assert [path for path, source in MODULES.items() if not source.startswith("// ")] == []


def test_every_module_is_loaded_and_imports_only_what_is_there() -> None:
    imports = {path: set(_imports(path, source)) for path, source in MODULES.items()}
    assert set().union(*imports.values()) <= set(MODULES)
    started = set(re.findall(r'<script type="module" src="/static/([^"]+)"', SOURCES["index.html"]))
    assert set(MODULES) - set().union(*imports.values()) <= started


def test_every_file_is_shipped() -> None:
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
