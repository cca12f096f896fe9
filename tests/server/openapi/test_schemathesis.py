"""schemathesis asks the server whatever the description allows and forbids, and holds the answers against it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.serving import says, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODELS = {name: says("echo; usage:3,4") for name in ("claude4", "nova", "m")}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
"""Not that all it makes is accepted: that a picture is one, or a name a preset's, no schema can say."""


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    async def run() -> tuple[int | None, str]:
        async with serving(tmp_path, models=MODELS) as server:
            child = await asyncio.create_subprocess_exec(
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
                # A socket's handshake is no question to which HTTP has an answer.
                *("--exclude-path-regex", "^/ws"),
                cwd=tmp_path,
                env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                said, _ = await asyncio.wait_for(child.communicate(), 500)
            finally:
                if child.returncode is None:
                    child.kill()
            return child.returncode, said.decode()

    code, said = asyncio.run(run())
    assert code == 0, said
