"""A job's directory, the only source of truth about it: its files, how they are written, and who may write them.

spec.json         the request and what it became; written once
status.json       the job's state and result; the holder of `lock` replaces it whole
log               the output of its script, masked
lock              held by the supervisor for as long as it lives
cancel            exists once a client has requested the job's end
script            the preset's own script, as it was when the job was submitted
mark              open in every process that the script starts, so that leftovers can be found
supervisor.log    the log of the supervisor itself
reserve           space for the last status on a full disk
work/             the working directory of the script
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import TypeVar

import msgspec

from infraforge_runner.jobs.model import Job, JobSpec, JobStatus

T = TypeVar("T")

RESERVE_BYTES = 65_536  # bytes
_STAGED_PREFIX, _REMOVED_PREFIX = ".new-", ".gone-"


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
    def create(cls, jobs: Path, spec: JobSpec, status: JobStatus, script: bytes | None) -> JobDirectory:
        """Create a directory under `jobs`, whole or not at all. Raises OSError."""
        staged = cls(jobs / (_STAGED_PREFIX + spec.job_id))
        staged.path.mkdir(mode=0o700)
        try:
            staged.work.mkdir()
            (staged.path / "spec.json").write_bytes(msgspec.json.encode(spec))
            staged._status.write_bytes(msgspec.json.encode(status))
            for name in ("lock", "mark"):
                (staged.path / name).touch()
            (staged.path / "reserve").write_bytes(bytes(RESERVE_BYTES))
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
        return Job(read_json(self.path / "spec.json", JobSpec), self.read_status())

    def read_status(self) -> JobStatus:
        """Raises OSError, msgspec.DecodeError."""
        return read_json(self._status, JobStatus)

    def write_status(self, status: JobStatus) -> None:
        """Replace the status; only the holder of the lock may. Raises OSError.

        A finished status finds room on a full disk too.
        """
        content = msgspec.json.encode(status)
        try:
            replace_file(self._status, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not status.is_finished:
                raise
            (self.path / "reserve").unlink(missing_ok=True)
            replace_file(self._status, content)

    def try_lock(self) -> int | None:
        """Return a descriptor that holds the lock, None where another process holds it. Raises OSError."""
        return try_lock(self.path / "lock")

    def request_cancel(self) -> None:
        self._cancel.touch()

    @property
    def is_cancel_requested(self) -> bool:
        return self._cancel.exists()

    def remove(self) -> None:
        """Remove it in two steps, so that a half-removed directory is never read as a job. Raises OSError."""
        removed = self.path.with_name(_REMOVED_PREFIX + self.path.name)
        self.path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def list_job_directories(jobs: Path) -> list[JobDirectory]:
    """The directories under `jobs`. Those that are half created or half removed are deleted. Raises OSError."""
    directories = []
    for path in jobs.iterdir():
        if path.name.startswith((_STAGED_PREFIX, _REMOVED_PREFIX)):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            directories.append(JobDirectory(path))
    return directories


def read_json(path: Path, content_type: type[T]) -> T:
    """Raises OSError, msgspec.DecodeError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=content_type)
    except UnicodeDecodeError as error:  # msgspec does not turn it into an error of its own
        raise msgspec.DecodeError(f"{path.name} is no UTF-8") from error


def replace_file(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader sees the old content or the new. Raises OSError."""
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(content)
        new.replace(path)
        os.utime(path)  # a watch for writes alone sees a change of times, and no rename
    except OSError:
        new.unlink(missing_ok=True)
        raise


def try_lock(path: Path) -> int | None:
    """Lock a file, which is created if missing; return a descriptor that holds the lock.

    None where another process holds it. Raises OSError.
    """
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
