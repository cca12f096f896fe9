"""/healthz and /readyz: for load balancers, whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import VERSION
from tests.async_tests import async_test
from tests.running_server import running_server
from tests.server.checks import check_error


@async_test
async def test_health_running_server_is_alive_and_ready(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert (await server.get("/healthz")).json == {"status": "ok", "version": VERSION}
        assert (await server.get("/readyz")).json == {"status": "ready"}


@async_test
async def test_health_draining_server_is_alive_but_not_ready(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        server.services.ready = False
        assert (await server.get("/healthz")).status == 200
        check_error(await server.get("/readyz"), 503, "unavailable")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@async_test
async def test_health_allows_any_host_without_key(tmp_path: Path, path: str) -> None:
    async with running_server(tmp_path, environ={"FORGELINE_API_KEYS": "k"}) as server:
        assert (await server.get(path, Host="rebound.example")).status == 200
        assert (await server.get(path, Origin="https://other.example")).status == 200
        check_error(await server.request("POST", path), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@async_test
async def test_health_head_has_status_and_headers_of_get_without_body(tmp_path: Path, path: str) -> None:
    async with running_server(tmp_path) as server:
        answer, head = await server.get(path), await server.request("HEAD", path)
        assert (head.status, head.content) == (200, b"")
        assert head.headers["Content-Length"] == answer.headers["Content-Length"]
        server.services.ready = False
        assert (await server.request("HEAD", "/readyz")).status == 503


@async_test
async def test_health_and_metrics_name_the_version(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert f'forgeline_build_info{{version="{VERSION}"}} 1.0' in (await server.get("/metrics")).content.decode()
