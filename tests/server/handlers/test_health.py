"""/healthz and /readyz: for load balancers, whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import asynchronous
from tests.server.checks import check_error
from tests.serving import serving


@asynchronous
async def test_a_server_that_serves_is_alive_and_ready(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.get("/healthz")).json == {"status": "ok"}
        assert (await server.get("/readyz")).json == {"status": "ready"}


@asynchronous
async def test_a_server_that_drains_is_alive_but_not_ready(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.services.ready = False
        assert (await server.get("/healthz")).status == 200
        check_error(await server.get("/readyz"), 503, "unavailable")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@asynchronous
async def test_they_take_any_host_and_need_no_key(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, environ={"FORGELINE_API_KEYS": "k"}) as server:
        assert (await server.get(path, Host="rebound.example")).status == 200
        assert (await server.get(path, Origin="https://other.example")).status == 200
        check_error(await server.request("POST", path), 405, "method_not_allowed")
