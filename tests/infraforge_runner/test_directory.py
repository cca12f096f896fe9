"""A job's directory: all of it or nothing, a status that is old or new, and one holder of the lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infraforge_runner.directory import RESERVE, JobDirectory, job_directories, replace_file, take_lock
from infraforge_runner.job import Job
from tests.infraforge_runner.orders import NOW, make_spec, queued

TAKE = "import sys; from infraforge_runner.directory import take_lock; from pathlib import Path\n"


def create(jobs: Path, script: bytes | None = b"true") -> JobDirectory:
    jobs.mkdir(exist_ok=True)
    return JobDirectory.create(jobs, make_spec(), queued(), script)


def test_a_new_directory_holds_what_was_asked_and_is_its_owners_alone(tmp_path: Path) -> None:
    spec = make_spec(overrides={"size": 3}, idempotency=("me", "once", "hash"))
    directory = JobDirectory.create(tmp_path, spec, queued(), b"#!/bin/sh\necho \xff\n")
    assert directory.path == tmp_path / spec.job_id
    assert directory.read() == Job(spec, queued())
    assert directory.script.read_bytes() == b"#!/bin/sh\necho \xff\n"
    assert directory.script.stat().st_mode & 0o777 == 0o700
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / "reserve").stat().st_blocks * 512 >= RESERVE
    assert os.listdir(directory.work) == []
    assert os.listdir(tmp_path) == [spec.job_id]


def test_a_job_of_ours_has_no_script_of_its_own(tmp_path: Path) -> None:
    assert not create(tmp_path, script=None).script.exists()


@pytest.mark.parametrize("fails", ["mkdir", "write_bytes", "touch", "chmod", "rename"])
def test_a_directory_that_can_not_be_made_whole_is_not_made_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    real, calls = getattr(Path, fails), []

    def full(path: Path, *args: object, **kwargs: object) -> object:
        calls.append(path)
        if len(calls) == {"mkdir": 2, "write_bytes": 3}.get(fails, 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, fails, full)
        with pytest.raises(OSError, match="No space left"):
            JobDirectory.create(tmp_path, make_spec(), queued(), b"true")
    assert os.listdir(tmp_path) == []


def test_a_reader_sees_the_old_content_or_the_new_and_nothing_between(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([number]) * 200_000 for number in b"ab"]
    replace_file(path, contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            replace_file(path, contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in contents
    writer.join()
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_can_not_be_replaced_stays_and_nothing_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(new: Path, content: bytes) -> None:
        with new.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_has_one_holder_also_in_the_same_process_until_it_is_closed(tmp_path: Path) -> None:
    directory = create(tmp_path)
    held = directory.take_lock()
    assert held is not None
    assert not os.get_inheritable(held)
    assert directory.take_lock() is None
    os.close(held)
    again = directory.take_lock()
    assert again is not None
    os.close(again)


def test_a_lock_that_is_refused_leaves_no_descriptor_open(tmp_path: Path) -> None:
    held = take_lock(tmp_path / "lock")
    assert held is not None
    before = len(os.listdir("/proc/self/fd"))
    assert [take_lock(tmp_path / "lock") for _ in range(20)] == [None] * 20
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(held)


def test_a_lock_is_free_when_the_process_that_held_it_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = f"{TAKE}take_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert take_lock(path) is None
        holder.kill()
    held = take_lock(path)
    assert held is not None
    os.close(held)


def test_a_lock_that_was_handed_on_stays_held_when_the_giver_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = take_lock(path)
    assert held is not None
    wait = "import sys; print('here', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(held,)
    ) as heir:
        assert heir.stdout is not None
        heir.stdout.readline()
        os.close(held)
        assert take_lock(path) is None
        heir.kill()
    held = take_lock(path)
    assert held is not None
    os.close(held)


def test_what_is_half_made_or_half_removed_is_cleared_away_and_files_are_no_jobs(tmp_path: Path) -> None:
    kept = create(tmp_path)
    for name in (".new-1", ".gone-2"):
        (tmp_path / name / "work").mkdir(parents=True)
        (tmp_path / name / "work" / "file").touch()
    (tmp_path / "notes.txt").touch()
    assert [found.path for found in job_directories(tmp_path)] == [kept.path]
    assert sorted(os.listdir(tmp_path)) == sorted([kept.path.name, "notes.txt"])


def test_a_removed_job_is_gone_from_the_disk(tmp_path: Path) -> None:
    directory = create(tmp_path)
    (directory.work / "sub").mkdir()
    (directory.work / "link").symlink_to("/etc")
    directory.remove()
    assert os.listdir(tmp_path) == []
    assert Path("/etc/passwd").exists()


def test_a_wish_to_cancel_stays(tmp_path: Path) -> None:
    directory = create(tmp_path)
    assert not directory.is_cancelled
    directory.ask_to_cancel()
    directory.ask_to_cancel()
    assert JobDirectory(directory.path).is_cancelled


def test_a_status_is_replaced_whole(tmp_path: Path) -> None:
    directory = create(tmp_path)
    running = queued().begin(NOW)
    directory.write_status(running)
    assert directory.read_status() == running
    assert (directory.path / "reserve").exists()
