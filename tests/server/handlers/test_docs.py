"""The page that shows the API, and the description that it reads."""

from __future__ import annotations

import re
from pathlib import Path

from tests.aio import asynchronous
from tests.serving import says, serving

OWN = re.compile(r'(?:src|href)="([^"]+)"')


@asynchronous
async def test_the_page_and_all_it_asks_for_are_served_under_a_strict_policy(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        page = await server.get("/api/docs")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        html = page.content.decode()
        files = [await server.get(path) for path in OWN.findall(html)]
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


@asynchronous
async def test_neither_needs_a_key_but_both_look_at_the_host(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k\n")
    async with serving(tmp_path, "--api-keys-file", str(keys), models={"m": says("echo")}) as server:
        for path in ("/api/docs", "/api/docs/docs.js", "/api/openapi.json"):
            assert (await server.get(path)).status == 200
            assert (await server.get(path, Host="rebound.example")).status == 403
        assert (await server.get("/api/models")).status == 401


@asynchronous
async def test_nothing_else_of_the_disk_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for path in ("/api/docs/", "/api/docs/index.html", "/api/docs/..%2fdocs.js", "/api/docs/../../app.py"):
            assert (await server.get(path)).status == 404
