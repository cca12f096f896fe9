"""Start and stop of the server, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from infraforge_runner.runner import JobRunner
from pipeline.runtime import Runtime
from server.jobs.deployed_models import DeployedModels
from tests.async_tests import async_test
from tests.running_server import running_server


@async_test
async def test_shutdown_failing_close_does_not_skip_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    async def fail(self: DeployedModels) -> None:
        raise OSError("no space left")

    close_jobs, close_runtime = JobRunner.close, Runtime.close

    async def record_jobs(self: JobRunner) -> None:
        closed.append("jobs")
        await close_jobs(self)

    async def record_runtime(self: Runtime) -> None:
        closed.append("runtime")
        await close_runtime(self)

    monkeypatch.setattr(DeployedModels, "close", fail)
    monkeypatch.setattr(JobRunner, "close", record_jobs)
    monkeypatch.setattr(Runtime, "close", record_runtime)
    with pytest.raises(OSError, match="no space left"):
        async with running_server(tmp_path):
            pass
    assert closed == ["jobs", "runtime"]
