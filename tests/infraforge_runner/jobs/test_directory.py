"""A job's directory: created whole or not at all, an atomic status, and one holder of the lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infraforge_runner.jobs.directory import RESERVE_BYTES, JobDirectory, list_job_directories, replace_file, try_lock
from infraforge_runner.jobs.model import Job
from tests.infraforge_runner.factories import NOW, make_spec, queued_status

IMPORTS = "import sys; from infraforge_runner.jobs.directory import try_lock; from pathlib import Path\n"


def create_directory(jobs: Path, script: bytes | None = b"true") -> JobDirectory:
    jobs.mkdir(exist_ok=True)
    return JobDirectory.create(jobs, make_spec(), queued_status(), script)


def test_create_writes_spec_script_and_reserve_for_owner_only(tmp_path: Path) -> None:
    spec = make_spec(overrides={"size": 3}, idempotency=("me", "once", "hash"))
    directory = JobDirectory.create(tmp_path, spec, queued_status(), b"#!/bin/sh\necho \xff\n")
    assert directory.path == tmp_path / spec.job_id
    assert directory.read() == Job(spec, queued_status())
    assert directory.script.read_bytes() == b"#!/bin/sh\necho \xff\n"
    assert directory.script.stat().st_mode & 0o777 == 0o700
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    assert os.listdir(directory.work) == []
    assert os.listdir(tmp_path) == [spec.job_id]


def test_create_without_script_writes_none(tmp_path: Path) -> None:
    assert not create_directory(tmp_path, script=None).script.exists()


@pytest.mark.parametrize("fails", ["mkdir", "write_bytes", "touch", "chmod", "rename"])
def test_create_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    real, calls = getattr(Path, fails), []

    def full(path: Path, *args: object, **kwargs: object) -> object:
        calls.append(path)
        if len(calls) == {"mkdir": 2, "write_bytes": 3}.get(fails, 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, fails, full)
        with pytest.raises(OSError, match="No space left"):
            JobDirectory.create(tmp_path, make_spec(), queued_status(), b"true")
    assert os.listdir(tmp_path) == []


def test_replace_file_is_atomic_for_readers(tmp_path: Path) -> None:
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


def test_replace_file_that_fails_keeps_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_lock_has_one_holder_until_closed(tmp_path: Path) -> None:
    directory = create_directory(tmp_path)
    lock = directory.try_lock()
    assert lock is not None
    assert not os.get_inheritable(lock)
    assert directory.try_lock() is None
    os.close(lock)
    again = directory.try_lock()
    assert again is not None
    os.close(again)


def test_lock_held_elsewhere_leaks_no_descriptor(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    before = len(os.listdir("/proc/self/fd"))
    assert [try_lock(tmp_path / "lock") for _ in range(20)] == [None] * 20
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(lock)


def test_lock_is_free_after_kill_of_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = f"{IMPORTS}try_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert try_lock(path) is None
        holder.kill()
    lock = try_lock(path)
    assert lock is not None
    os.close(lock)


def test_inherited_lock_stays_held_after_parent_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = try_lock(path)
    assert lock is not None
    wait = "import sys; print('here', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(lock,)
    ) as heir:
        assert heir.stdout is not None
        heir.stdout.readline()
        os.close(lock)
        assert try_lock(path) is None
        heir.kill()
    lock = try_lock(path)
    assert lock is not None
    os.close(lock)


def test_list_deletes_half_created_directories_and_ignores_files(tmp_path: Path) -> None:
    directory = create_directory(tmp_path)
    for name in (".new-1", ".gone-2"):
        (tmp_path / name / "work").mkdir(parents=True)
        (tmp_path / name / "work" / "file").touch()
    (tmp_path / "notes.txt").touch()
    assert [listed.path for listed in list_job_directories(tmp_path)] == [directory.path]
    assert sorted(os.listdir(tmp_path)) == sorted([directory.path.name, "notes.txt"])


def test_remove_deletes_directory_and_follows_no_link(tmp_path: Path) -> None:
    directory = create_directory(tmp_path)
    (directory.work / "sub").mkdir()
    (directory.work / "link").symlink_to("/etc")
    directory.remove()
    assert os.listdir(tmp_path) == []
    assert Path("/etc/passwd").exists()


def test_cancel_request_persists(tmp_path: Path) -> None:
    directory = create_directory(tmp_path)
    assert not directory.is_cancel_requested
    directory.request_cancel()
    directory.request_cancel()
    assert JobDirectory(directory.path).is_cancel_requested


def test_write_status_replaces_status_and_keeps_reserve(tmp_path: Path) -> None:
    directory = create_directory(tmp_path)
    running = queued_status().start(NOW)
    directory.write_status(running)
    assert directory.read_status() == running
    assert (directory.path / "reserve").exists()
