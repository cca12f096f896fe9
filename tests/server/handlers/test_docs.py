"""The API reference page, and its OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path

from tests.async_tests import async_test
from tests.running_server import running_server, scripted_model

OWN_URL = re.compile(r'(?:src|href)="([^"]+)"')


@async_test
async def test_docs_page_and_files_have_strict_policy(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        page = await server.get("/api/docs")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        html = page.content.decode()
        files = [await server.get(path) for path in OWN_URL.findall(html)]
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert [file.status for file in files] == [200] * 4
    assert {file.headers["Content-Type"].partition(";")[0] for file in files} == {
        "text/css",
        "text/javascript",
        "application/json",
    }
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", html)
    for file in [page, *files]:
        assert not re.search(rb"https?://(?!json-schema)", file.content)


@async_test
async def test_docs_need_no_key_but_check_host(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k\n")
    async with running_server(tmp_path, "--api-keys-file", str(keys), models={"m": scripted_model("echo")}) as server:
        for path in ("/api/docs", "/api/docs/docs.js", "/api/openapi.json"):
            assert (await server.get(path)).status == 200
            assert (await server.get(path, Host="rebound.example")).status == 403
        assert (await server.get("/api/models")).status == 401


@async_test
async def test_docs_unknown_file_is_404(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for path in ("/api/docs/", "/api/docs/index.html", "/api/docs/..%2fdocs.js", "/api/docs/../../app.py"):
            assert (await server.get(path)).status == 404
