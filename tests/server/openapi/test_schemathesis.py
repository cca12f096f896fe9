"""schemathesis sends the requests that the OpenAPI document allows and forbids, and validates the responses."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.running_server import running_server, scripted_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODELS = {name: scripted_model("echo; usage:3,4") for name in ("claude4", "nova", "m")}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
"""Without positive_data_acceptance: no schema can express that a picture decodes or that a preset exists."""


def test_schemathesis_finds_no_failure(tmp_path: Path) -> None:
    async def run() -> tuple[int | None, str]:
        async with running_server(tmp_path, models=MODELS) as server:
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("schemathesis")),
                *("run", server.url + "/api/openapi.json", "--checks", ",".join(CHECKS)),
                *(
                    "--phases",
                    "coverage,fuzzing",
                    "--max-examples",
                    "10",
                    "--seed",
                    "1",
                    "--request-timeout",
                    "10",
                    "--no-color",
                ),
                # A WebSocket handshake has no HTTP response to validate.
                *("--exclude-path-regex", "^/ws"),
                cwd=tmp_path,
                env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), 500)
            finally:
                if process.returncode is None:
                    process.kill()
            return process.returncode, output.decode()

    code, output = asyncio.run(run())
    assert code == 0, output
