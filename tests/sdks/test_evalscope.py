"""`evalscope perf`, as those who measure models use it, in an environment of its own, against a running server."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.processes import ROOT, running
from tests.serving import says

EVALSCOPE = ROOT / ".venv-evalscope" / "bin" / "evalscope"
QUESTIONS = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_evalscope_completes_a_run_without_a_failed_request(tmp_path: Path, stream: bool) -> None:
    if not EVALSCOPE.exists():
        pytest.skip("evalscope is not installed; `make test-slow` installs it")
    code, said = asyncio.run(run(tmp_path, "--stream" if stream else "--no-stream"))
    assert code == 0, said
    (summary,) = (tmp_path / "out").rglob("benchmark_summary.json")
    told = json.loads(summary.read_text())
    counts = [told[name] for name in ("Total Requests", "Success Requests", "Failed Requests")]
    assert counts == [QUESTIONS, QUESTIONS, 0], told


async def run(folder: Path, mode: str) -> tuple[int | None, str]:
    questions = folder / "questions.txt"
    questions.write_text("".join(f"What is {number} + {number}?\n" for number in range(QUESTIONS)))
    async with running(folder, models={"m": says("chunks:20; usage:9,20")}) as process:
        child = await asyncio.create_subprocess_exec(
            *(str(EVALSCOPE), "perf", "--url", process.url + "/v1/chat/completions", "--api", "openai", "--model", "m"),
            *("--dataset", "line_by_line", "--dataset-path", str(questions), "--max-tokens", "32", mode),
            *("--number", str(QUESTIONS), "--parallel", "4", "--outputs-dir", str(folder / "out")),
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(child.communicate(), 200)
        finally:
            if child.returncode is None:
                child.kill()
        return child.returncode, said.decode()
