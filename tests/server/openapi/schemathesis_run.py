"""schemathesis as a program: it sends the requests that a server's OpenAPI document allows and forbids."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

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


async def run_schemathesis(url: str, folder: Path, *selection: str, seconds: float = 500) -> tuple[int | None, str]:
    """Its exit code and its output. `selection` are its options that choose paths."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", url + "/api/openapi.json", "--checks", ",".join(CHECKS)),
        *("--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--request-timeout", "10"),
        "--no-color",
        *selection,
        cwd=folder,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, output.decode()
