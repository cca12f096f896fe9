"""Which jobs are kept, and what a server makes of what it finds in its folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Outcome
from tests.aio import asynchronous, comes_true, unhurried
from tests.infraforge_runner.orders import NOW, make_spec, queued
from tests.jobs import ended, job_of, said, submit, write_hyperpod
from tests.serving import Server, says, serving

MODELS = {"m": says("echo")}


async def kept(server: Server) -> list[str]:
    answer = await server.get("/api/hyperpod/jobs")
    return [job["job_id"] for job in answer.json["jobs"]]


def finished(jobs: Path, created_at: str = NOW) -> str:
    """A job of an earlier server, that has ended: its id."""
    jobs.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(returncode=0, command="bash script", duration_seconds=1.0)
    status = queued().begin(NOW).finish(NOW, "succeeded", outcome)
    return JobDirectory.create(jobs, make_spec(created_at=created_at), status, b"true").path.name


@pytest.mark.slow
@unhurried
async def test_the_oldest_that_have_finished_go_and_never_one_that_has_not(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    write_hyperpod(tmp_path / "presets", "long", deploy="echo begun; until [ -e go ]; do sleep 0.05; done")
    write_hyperpod(tmp_path / "presets", "small")
    async with serving(tmp_path, "--keep-jobs", "3", models=MODELS) as server:
        oldest = (await submit(server, preset="long"))["job_id"]
        await said(server, oldest, "begun")
        jobs = []
        for _ in range(5):
            jobs.append((await submit(server))["job_id"])
            await ended(server, jobs[-1])
        await comes_true(lambda: set(os.listdir(folder)) == {oldest, *jobs[2:]})
        assert await kept(server) == [*jobs[:1:-1], oldest]
        for gone in jobs[:2]:
            for path in (gone, f"{gone}/logs"):
                assert (await server.get(f"/api/hyperpod/jobs/{path}")).status == 404
        (folder / oldest / "work" / "go").touch()
        assert (await ended(server, oldest))["status"] == "succeeded"


@asynchronous
async def test_at_its_start_a_server_forgets_what_is_too_much_or_too_old(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    ids = [finished(folder, f"2999-01-0{day}T00:00:00.000000+00:00") for day in (1, 2, 3, 4)]
    old = finished(folder, "2020-01-01T00:00:00.000000+00:00")
    async with serving(tmp_path, models=MODELS) as server:
        assert await kept(server) == ids[::-1]
        assert not (folder / old).exists()
    async with serving(tmp_path, "--keep-jobs", "3", models=MODELS) as server:
        assert await kept(server) == ids[:0:-1]
    assert sorted(os.listdir(folder)) == sorted(ids[1:])


@asynchronous
async def test_what_a_killed_server_left_half_made_is_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    there = finished(folder, "2999-01-01T00:00:00.000000+00:00")
    for name in (".new-4514d842", ".gone-1e79d026"):
        shutil.copytree(folder / there, folder / name)
    async with serving(tmp_path, models=MODELS) as server:
        assert await kept(server) == [there]
        assert os.listdir(folder) == [there]


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
@asynchronous
async def test_a_directory_that_is_no_job_is_passed_over_and_left_alone(
    tmp_path: Path, file: str, content: bytes | None
) -> None:
    folder = tmp_path / "data" / "jobs"
    there, broken = (finished(folder, f"2999-01-0{day}T00:00:00.000000+00:00") for day in (1, 2))
    if content is None:
        (folder / broken / file).unlink()
    else:
        (folder / broken / file).write_bytes(content)
    (folder / "lost+found").mkdir()
    (folder / "notes.txt").touch()
    async with serving(tmp_path, models=MODELS) as server:
        assert await kept(server) == [there]
        assert (await server.get(f"/api/hyperpod/jobs/{broken}")).status == 404
    assert sorted(os.listdir(folder)) == sorted([there, broken, "lost+found", "notes.txt"])


@asynchronous
async def test_a_copy_of_a_job_is_not_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    folder.mkdir(parents=True)
    spec = make_spec(created_at="2999-01-01T00:00:00.000000+00:00")
    directory = JobDirectory.create(folder, spec, queued(), b"echo hello")
    shutil.copytree(directory.path, folder / "backup")
    async with serving(tmp_path, models=MODELS) as server:
        assert await kept(server) == [spec.job_id]
        assert (await ended(server, spec.job_id))["status"] == "succeeded"
        assert (await job_of(server, spec.job_id))["started_at"]
        assert JobDirectory(folder / "backup").read_status() == queued()
