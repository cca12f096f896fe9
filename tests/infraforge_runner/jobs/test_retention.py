"""Which jobs are kept, and what a server does with other things in its folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import Outcome
from tests.async_tests import async_test, slow_async_test, wait_until
from tests.infraforge_runner.factories import NOW, make_spec, queued_status
from tests.jobs import get_job, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model

MODELS = {"m": scripted_model("echo")}


async def list_job_ids(server: RunningServer) -> list[str]:
    answer = await server.get("/api/hyperpod/jobs")
    return [job["job_id"] for job in answer.json["jobs"]]


def create_finished_job(jobs: Path, created_at: str = NOW) -> str:
    """Create a finished job of an earlier server; return its id."""
    jobs.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(returncode=0, command="bash script", duration_seconds=1.0)
    status = queued_status().start(NOW).finish(NOW, "succeeded", outcome)
    return JobDirectory.create(jobs, make_spec(created_at=created_at), status, b"true").path.name


@pytest.mark.slow
@slow_async_test
async def test_retention_removes_oldest_finished_jobs_only(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    write_hyperpod_preset(tmp_path / "presets", "long", deploy="echo begun; until [ -e go ]; do sleep 0.05; done")
    write_hyperpod_preset(tmp_path / "presets", "small")
    async with running_server(tmp_path, "--keep-jobs", "3", models=MODELS) as server:
        oldest = (await submit(server, preset="long"))["job_id"]
        await wait_for_log_text(server, oldest, "begun")
        jobs = []
        for _ in range(5):
            jobs.append((await submit(server))["job_id"])
            await wait_for_job(server, jobs[-1])
        await wait_until(lambda: set(os.listdir(folder)) == {oldest, *jobs[2:]})
        assert await list_job_ids(server) == [*jobs[:1:-1], oldest]
        for removed in jobs[:2]:
            for path in (removed, f"{removed}/logs"):
                assert (await server.get(f"/api/hyperpod/jobs/{path}")).status == 404
        (folder / oldest / "work" / "go").touch()
        assert (await wait_for_job(server, oldest))["status"] == "succeeded"


@async_test
async def test_retention_at_start_removes_excess_and_old_jobs(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    ids = [create_finished_job(folder, f"2999-01-0{day}T00:00:00.000000+00:00") for day in (1, 2, 3, 4)]
    old = create_finished_job(folder, "2020-01-01T00:00:00.000000+00:00")
    async with running_server(tmp_path, models=MODELS) as server:
        assert await list_job_ids(server) == ids[::-1]
        assert not (folder / old).exists()
    async with running_server(tmp_path, "--keep-jobs", "3", models=MODELS) as server:
        assert await list_job_ids(server) == ids[:0:-1]
    assert sorted(os.listdir(folder)) == sorted(ids[1:])


@async_test
async def test_start_deletes_half_created_directories(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    valid = create_finished_job(folder, "2999-01-01T00:00:00.000000+00:00")
    for name in (".new-4514d842", ".gone-1e79d026"):
        shutil.copytree(folder / valid, folder / name)
    async with running_server(tmp_path, models=MODELS) as server:
        assert await list_job_ids(server) == [valid]
        assert os.listdir(folder) == [valid]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("spec.json", None),
        ("spec.json", b""),
        ("spec.json", b"\xff\xfe"),
        ("spec.json", b"[]"),
        ("spec.json", b'{"job_id": "\xff"}'),
        ("status.json", None),
        ("status.json", b""),
        ("status.json", b'{"status": "lost", "updated_at": ""}'),
        ("status.json", b'{"status": "runn'),
    ],
)
@async_test
async def test_start_ignores_directory_that_is_no_job(tmp_path: Path, file: str, content: bytes | None) -> None:
    folder = tmp_path / "data" / "jobs"
    valid, broken = (create_finished_job(folder, f"2999-01-0{day}T00:00:00.000000+00:00") for day in (1, 2))
    if content is None:
        (folder / broken / file).unlink()
    else:
        (folder / broken / file).write_bytes(content)
    (folder / "lost+found").mkdir()
    (folder / "notes.txt").touch()
    async with running_server(tmp_path, models=MODELS) as server:
        assert await list_job_ids(server) == [valid]
        assert (await server.get(f"/api/hyperpod/jobs/{broken}")).status == 404
    assert sorted(os.listdir(folder)) == sorted([valid, broken, "lost+found", "notes.txt"])


@async_test
async def test_start_never_runs_copy_of_job(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    folder.mkdir(parents=True)
    spec = make_spec(created_at="2999-01-01T00:00:00.000000+00:00")
    directory = JobDirectory.create(folder, spec, queued_status(), b"echo hello")
    shutil.copytree(directory.path, folder / "backup")
    async with running_server(tmp_path, models=MODELS) as server:
        assert await list_job_ids(server) == [spec.job_id]
        assert (await wait_for_job(server, spec.job_id))["status"] == "succeeded"
        assert (await get_job(server, spec.job_id))["started_at"]
        assert JobDirectory(folder / "backup").read_status() == queued_status()


@async_test
async def test_start_ignores_job_of_unknown_kind(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    folder.mkdir(parents=True)
    spec = make_spec(action="of-a-later-version", created_at="2999-01-01T00:00:00.000000+00:00")
    directory = JobDirectory.create(folder, spec, queued_status(), b"echo hello")
    async with running_server(tmp_path, models=MODELS) as server:
        assert await list_job_ids(server) == []
    assert directory.read_status() == queued_status()
