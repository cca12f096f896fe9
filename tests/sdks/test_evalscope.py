"""`evalscope perf`, a benchmark of models, in a virtual environment of its own, against a running server."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.processes import ROOT, running_process
from tests.running_server import scripted_model

EVALSCOPE = ROOT / ".venv-evalscope" / "bin" / "evalscope"
QUESTION_COUNT = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_evalscope_run_has_no_failed_request(tmp_path: Path, stream: bool) -> None:
    if not EVALSCOPE.exists():
        pytest.skip("evalscope is not installed; `make test-slow` installs it")
    code, output = asyncio.run(run_evalscope(tmp_path, "--stream" if stream else "--no-stream"))
    assert code == 0, output
    (summary_path,) = (tmp_path / "out").rglob("benchmark_summary.json")
    summary = json.loads(summary_path.read_text())
    counts = [summary[name] for name in ("Total Requests", "Success Requests", "Failed Requests")]
    assert counts == [QUESTION_COUNT, QUESTION_COUNT, 0], summary


async def run_evalscope(folder: Path, mode: str) -> tuple[int | None, str]:
    questions = folder / "questions.txt"
    questions.write_text("".join(f"What is {number} + {number}?\n" for number in range(QUESTION_COUNT)))
    async with running_process(folder, models={"m": scripted_model("chunks:20; usage:9,20")}) as server:
        process = await asyncio.create_subprocess_exec(
            *(str(EVALSCOPE), "perf", "--url", server.url + "/v1/chat/completions", "--api", "openai", "--model", "m"),
            *("--dataset", "line_by_line", "--dataset-path", str(questions), "--max-tokens", "32", mode),
            *("--number", str(QUESTION_COUNT), "--parallel", "4", "--outputs-dir", str(folder / "out")),
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 200)
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode, output.decode()
