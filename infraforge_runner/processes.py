"""The processes of a job: all that its script has started, however far they went to get away.

A supervisor that lives finds them as its descendants: it is their subreaper, so that an orphan becomes its child.
Where it died, they are those that still carry a mark of the job.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PROC = Path("/proc")
GIVE_UP_AFTER = 30.0  # seconds, where even SIGKILL is of no use
PAUSE = 0.01  # seconds for what was killed to be gone


def become_subreaper() -> None:
    """Makes orphans among this process's descendants its children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def descendants(pid: int) -> list[int]:
    """The processes below this one, as far as they are there at this moment."""
    children: dict[int, list[int]] = {}
    for one in _pids():
        with suppress(OSError, ValueError):
            children.setdefault(_parent(one), []).append(one)
    found: list[int] = []
    to_visit = [pid]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found += below
        to_visit += below
    return found


def group_of(pid: int) -> int | None:
    """The process group; None where there is no such process any more."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may have ended meanwhile, or be another user's."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end_marked(job_id: str, mark: Path) -> int:
    """Ends every process that has this job in its environment or its mark open, and says how many that were.

    Two looks in a row have to find none: a process may fork behind a look's back. It gives up on what the kernel holds
    back, after `GIVE_UP_AFTER`.
    """
    variable, file = f"FORGELINE_JOB={job_id}".encode(), mark.stat()
    ended: set[int] = set()
    clean, until = 0, time.monotonic() + GIVE_UP_AFTER
    while clean < 2 and time.monotonic() < until:
        found = [pid for pid in _pids() if pid != os.getpid() and _end_if_marked(pid, variable, file)]
        ended.update(found)
        clean = 0 if found else clean + 1
        if found:
            time.sleep(PAUSE)
    return len(ended)


def _end_if_marked(pid: int, variable: bytes, file: os.stat_result) -> bool:
    try:
        descriptor = os.pidfd_open(pid)  # before the look: so it is this process that is looked at, and ended
    except ProcessLookupError:
        return False
    try:
        is_marked = _has(pid, variable) or _holds(pid, file)
        if is_marked:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return is_marked
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def _parent(pid: int) -> int:
    """Raises OSError, ValueError. The name of a process may hold spaces and brackets (proc(5))."""
    stat = (PROC / str(pid) / "stat").read_bytes()
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def _has(pid: int, variable: bytes) -> bool:
    try:
        return variable in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or somebody else's
        return False


def _holds(pid: int, file: os.stat_result) -> bool:
    try:
        return any(_is_same(entry, file) for entry in os.scandir(PROC / str(pid) / "fd"))
    except OSError:
        return False


def _is_same(entry: os.DirEntry[str], file: os.stat_result) -> bool:
    try:
        there = entry.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (file.st_dev, file.st_ino)
