"""A job's directory, which is the truth about it: its files, how they are written, and the lock that says who may.

spec.json         what was asked; written once
status.json       how it stands; whoever holds `lock` replaces it whole
log               the output of its script, masked
lock              held by the supervisor for as long as it lives, by nobody where it is gone
cancel            there once somebody has asked to stop the job
script            the preset's own script, as it was when the job was submitted
mark              open in every process that the script starts: by it leftovers are found
supervisor.log    what the supervisor itself had to say
reserve           room for the last status on a disk that is full
work/             where the script runs
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import TypeVar

import msgspec

from infraforge_runner.job import Job, Spec, Status

T = TypeVar("T")

RESERVE = 65_536  # bytes
_STAGED, _GONE = ".new-", ".gone-"


class JobDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.work = path / "work"
        self.mark = path / "mark"
        self.script = path / "script"
        self.supervisor_log = path / "supervisor.log"
        self._cancel = path / "cancel"
        self._status = path / "status.json"

    @classmethod
    def create(cls, jobs: Path, spec: Spec, status: Status, script: bytes | None) -> JobDirectory:
        """A new directory under `jobs`: all of it, or nothing. Raises OSError."""
        staged = cls(jobs / (_STAGED + spec.job_id))
        staged.path.mkdir(mode=0o700)
        try:
            staged.work.mkdir()
            (staged.path / "spec.json").write_bytes(msgspec.json.encode(spec))
            staged._status.write_bytes(msgspec.json.encode(status))
            for name in ("lock", "mark"):
                (staged.path / name).touch()
            (staged.path / "reserve").write_bytes(bytes(RESERVE))
            if script is not None:
                staged.script.write_bytes(script)
                staged.script.chmod(0o700)
            path = jobs / spec.job_id
            staged.path.rename(path)
        except BaseException:
            shutil.rmtree(staged.path, ignore_errors=True)
            raise
        return cls(path)

    def read(self) -> Job:
        """Raises OSError, msgspec.DecodeError."""
        return Job(read_json(self.path / "spec.json", Spec), self.read_status())

    def read_status(self) -> Status:
        """Raises OSError, msgspec.DecodeError."""
        return read_json(self._status, Status)

    def write_status(self, status: Status) -> None:
        """Only for the holder of the lock. The last one of a job finds room on a full disk too. Raises OSError."""
        content = msgspec.json.encode(status)
        try:
            replace_file(self._status, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not status.is_finished:
                raise
            (self.path / "reserve").unlink(missing_ok=True)
            replace_file(self._status, content)

    def take_lock(self) -> int | None:
        """A descriptor that holds the lock; None where somebody else does. Raises OSError."""
        return take_lock(self.path / "lock")

    def ask_to_cancel(self) -> None:
        self._cancel.touch()

    @property
    def is_cancelled(self) -> bool:
        return self._cancel.exists()

    def remove(self) -> None:
        """In two steps, so that no half of it is ever taken for a job."""
        gone = self.path.with_name(_GONE + self.path.name)
        self.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def job_directories(jobs: Path) -> list[JobDirectory]:
    """Those under `jobs`. What a process left half-made or half-removed is cleared away."""
    found = []
    for path in jobs.iterdir():
        if path.name.startswith((_STAGED, _GONE)):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            found.append(JobDirectory(path))
    return found


def read_json(path: Path, kind: type[T]) -> T:
    """Raises OSError, msgspec.DecodeError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except UnicodeDecodeError as error:  # msgspec makes no error of its own of text that is no UTF-8
        raise msgspec.DecodeError(f"{path.name} is no UTF-8") from error


def replace_file(path: Path, content: bytes) -> None:
    """Writes, then renames: a reader sees the old content or the new. Raises OSError."""
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(content)
        new.replace(path)
        os.utime(path)  # who watches the folder for writes alone is told of a time, but not of a rename
    except OSError:
        new.unlink(missing_ok=True)
        raise


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock on this file, made where it is missing; None where somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
