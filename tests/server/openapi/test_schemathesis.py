"""schemathesis sends the requests that the OpenAPI document allows and forbids, and validates the responses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.running_server import running_server, scripted_model
from tests.server.openapi.schemathesis_run import run_schemathesis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODELS = {name: scripted_model("echo; usage:3,4") for name in ("claude4", "nova", "m")}


def test_schemathesis_finds_no_failure(tmp_path: Path) -> None:
    async def run() -> tuple[int | None, str]:
        async with running_server(tmp_path, models=MODELS) as server:
            # A WebSocket handshake has no HTTP response to validate.
            return await run_schemathesis(server.url, tmp_path, "--exclude-path-regex", "^/ws")

    code, output = asyncio.run(run())
    assert code == 0, output
