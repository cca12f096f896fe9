"""A disk without room: a job fails cleanly, with its end on disk, and a new one is refused with a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Outcome
from tests.aio import asynchronous, unhurried
from tests.infraforge_runner.orders import NOW, make_spec, queued
from tests.jobs import ended, job_of, log_of, post, submit, write_hyperpod
from tests.server.scraping import scrape
from tests.serving import says, serving

MODELS = {"m": says("echo")}
SIZE = 1_000_000  # bytes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one, mounted as the server's data folder."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount here")
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(data)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield data
    finally:
        subprocess.run([umount, "-l", str(data)], check=True)


def fill(disk: Path) -> Path:
    """Takes the room that is left, to the last byte."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(2 * SIZE))
    return filler


@unhurried
async def test_a_job_whose_log_finds_no_room_fails_with_its_end_on_disk(tmp_path: Path, disk: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="seq 1000000; sleep 300")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        job = await ended(server, job_id)
        assert job["status"] == "failed"
        assert job["result"]["error"].startswith("Its log can't be written: No space left on device.")
        assert JobDirectory(disk / "jobs" / job_id).read_status().status == "failed"
        log = await log_of(server, job_id)
        assert "".join(f"{number}\n" for number in range(1, 1000000)).encode().startswith(log)
        assert len(log) > SIZE / 2
    async with serving(tmp_path, models=MODELS) as server:
        assert (await job_of(server, job_id))["result"] == job["result"]


@unhurried
async def test_a_script_that_fills_the_disk_itself_can_not_hide_its_end(tmp_path: Path, disk: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="cat /dev/zero > filler; echo no room; exit 3")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        job = await ended(server, job_id)
        assert job["status"] == "failed"
        assert JobDirectory(disk / "jobs" / job_id).read_status().status == "failed"


@unhurried
async def test_a_disk_that_is_full_refuses_a_job_and_takes_it_when_there_is_room(tmp_path: Path, disk: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="echo hello")
    async with serving(tmp_path, models=MODELS) as server:
        assert 0 < (await scrape(server))("data_free_bytes") <= 2 * SIZE
        filler = fill(disk)
        assert (await scrape(server))("data_free_bytes") == 0
        status, answer = await post(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (503, "unavailable")
        assert answer["error"] == "The job can't be kept: No space left on device."
        assert os.listdir(disk / "jobs") == []
        listed = await server.get("/api/hyperpod/jobs")
        assert listed.json["jobs"] == []
        filler.unlink()
        job = await ended(server, (await submit(server))["job_id"])
        assert job["status"] == "succeeded"


@unhurried
async def test_a_queued_job_that_finds_no_room_ends_and_the_next_one_runs(tmp_path: Path, disk: Path) -> None:
    write_hyperpod(tmp_path / "presets", "first", deploy="until [ -e go ]; do sleep 0.05; done")
    write_hyperpod(tmp_path / "presets", "second", deploy="echo hello")
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        first = (await submit(server, preset="first"))["job_id"]
        second = (await submit(server, preset="second"))["job_id"]
        (disk / "jobs" / first / "work" / "go").touch()
        filler = fill(disk)
        assert (await ended(server, first))["status"] in ("succeeded", "failed")
        job = await ended(server, second)
        assert job["status"] in ("failed", "succeeded")  # the first one's reserve is room for the second
        assert JobDirectory(disk / "jobs" / second).read_status().status == job["status"]
        filler.unlink()
        assert (await ended(server, (await submit(server, preset="second"))["job_id"]))["status"] == "succeeded"


@asynchronous
async def test_a_cancelled_job_on_a_full_disk_is_cancelled_or_says_why_not(tmp_path: Path, disk: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="until [ -e go ]; do sleep 0.05; done")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        filler = fill(disk)
        status, answer = await post(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        if status != 202:
            assert (status, answer["code"]) == (503, "unavailable")
            filler.unlink()
            status, _ = await post(server, f"/api/hyperpod/jobs/{job_id}/cancel")
            assert status == 202
        assert (await ended(server, job_id))["status"] == "cancelled"


def test_the_reserve_is_for_the_last_status(disk: Path) -> None:
    directory = JobDirectory.create(disk, make_spec(), queued(), None)
    fill(disk)
    running = queued().begin(NOW)
    with pytest.raises(OSError, match="No space left"):
        directory.write_status(running)
    assert directory.read_status() == queued()
    assert (directory.path / "reserve").exists()
    ended = running.finish(NOW, "failed", Outcome(returncode=1, command="", duration_seconds=1.0, error="x" * 10_000))
    directory.write_status(ended)
    assert directory.read_status() == ended
