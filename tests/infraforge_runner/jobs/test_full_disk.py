"""A full disk: a job fails cleanly with its last status on disk, and a new one is rejected with an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import Outcome
from tests.async_tests import async_test, slow_async_test
from tests.infraforge_runner.factories import NOW, make_spec, queued_status
from tests.jobs import get_job, get_log, post_json, submit, wait_for_job, write_hyperpod_preset
from tests.running_server import running_server, scripted_model
from tests.server.observability.scraping import scrape

MODELS = {"m": scripted_model("echo")}
DISK_BYTES = 1_000_000  # bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system, mounted as the server's data folder."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount here")
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield data
    finally:
        subprocess.run([umount, "-l", str(data)], check=True)


def fill(small_disk: Path) -> Path:
    """Use the space that is left, to the last byte."""
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(2 * DISK_BYTES))
    return filler


@slow_async_test
async def test_full_disk_fails_job_and_keeps_last_status(tmp_path: Path, small_disk: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="seq 1000000; sleep 300")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        job = await wait_for_job(server, job_id)
        assert job["status"] == "failed"
        assert job["result"]["error"].startswith("Its log can't be written: No space left on device.")
        assert JobDirectory(small_disk / "jobs" / job_id).read_status().status == "failed"
        log = await get_log(server, job_id)
        assert "".join(f"{number}\n" for number in range(1, 1000000)).encode().startswith(log)
        assert len(log) > DISK_BYTES / 2
    async with running_server(tmp_path, models=MODELS) as server:
        assert (await get_job(server, job_id))["result"] == job["result"]


@slow_async_test
async def test_script_that_fills_disk_still_gets_last_status(tmp_path: Path, small_disk: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="cat /dev/zero > filler; echo no room; exit 3")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        job = await wait_for_job(server, job_id)
        assert job["status"] == "failed"
        assert JobDirectory(small_disk / "jobs" / job_id).read_status().status == "failed"


@slow_async_test
async def test_full_disk_rejects_submission_until_space_is_free(tmp_path: Path, small_disk: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="echo hello")
    async with running_server(tmp_path, models=MODELS) as server:
        assert 0 < (await scrape(server))("data_free_bytes") <= 2 * DISK_BYTES
        filler = fill(small_disk)
        assert (await scrape(server))("data_free_bytes") == 0
        status, answer = await post_json(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (503, "unavailable")
        assert answer["error"] == "The job can't be kept: No space left on device."
        assert os.listdir(small_disk / "jobs") == []
        listed = await server.get("/api/hyperpod/jobs")
        assert listed.json["jobs"] == []
        filler.unlink()
        job = await wait_for_job(server, (await submit(server))["job_id"])
        assert job["status"] == "succeeded"


@slow_async_test
async def test_queued_job_on_full_disk_ends_and_next_runs(tmp_path: Path, small_disk: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", "first", deploy="until [ -e go ]; do sleep 0.05; done")
    write_hyperpod_preset(tmp_path / "presets", "second", deploy="echo hello")
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        first = (await submit(server, preset="first"))["job_id"]
        second = (await submit(server, preset="second"))["job_id"]
        (small_disk / "jobs" / first / "work" / "go").touch()
        filler = fill(small_disk)
        assert (await wait_for_job(server, first))["status"] in ("succeeded", "failed")
        job = await wait_for_job(server, second)
        assert job["status"] in ("failed", "succeeded")  # the first one's reserve is room for the second
        assert JobDirectory(small_disk / "jobs" / second).read_status().status == job["status"]
        filler.unlink()
        assert (await wait_for_job(server, (await submit(server, preset="second"))["job_id"]))["status"] == "succeeded"


@async_test
async def test_cancel_on_full_disk_succeeds_or_reports_error(tmp_path: Path, small_disk: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="until [ -e go ]; do sleep 0.05; done")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        filler = fill(small_disk)
        status, answer = await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        if status != 202:
            assert (status, answer["code"]) == (503, "unavailable")
            filler.unlink()
            status, _ = await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel")
            assert status == 202
        assert (await wait_for_job(server, job_id))["status"] == "cancelled"


def test_reserve_is_used_for_last_status_only(small_disk: Path) -> None:
    directory = JobDirectory.create(small_disk, make_spec(), queued_status(), None)
    fill(small_disk)
    running = queued_status().start(NOW)
    with pytest.raises(OSError, match="No space left"):
        directory.write_status(running)
    assert directory.read_status() == queued_status()
    assert (directory.path / "reserve").exists()
    finished = running.finish(
        NOW, "failed", Outcome(returncode=1, command="", duration_seconds=1.0, error="x" * 10_000)
    )
    directory.write_status(finished)
    assert directory.read_status() == finished
