"""The processes of a job: all that its script has started, also those that left its process group or session.

A living supervisor finds them as its descendants: it is their subreaper, so that an orphan becomes its child. After
its death they are found by a mark: the job's id in their environment, or the job's file `mark` among their open files.
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
GIVE_UP_SECONDS = 30.0  # after which a process that survives SIGKILL is left alone
POLL_SECONDS = 0.01  # between two scans for processes that are left


def become_subreaper() -> None:
    """Make orphans among this process's descendants its children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def descendants(pid: int) -> list[int]:
    """The pids of a process's descendants at this moment."""
    children: dict[int, list[int]] = {}
    for candidate in _list_pids():
        with suppress(OSError, ValueError):
            children.setdefault(_parent_of(candidate), []).append(candidate)
    pids: list[int] = []
    to_visit = [pid]
    while to_visit:
        children_of_pid = children.get(to_visit.pop(), [])
        pids += children_of_pid
        to_visit += children_of_pid
    return pids


def process_group(pid: int) -> int | None:
    """The process group of a process; None where the process is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile, or belong to another user."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_marked(job_id: str, mark: Path) -> int:
    """Kill every process that has this job in its environment or its mark open; return how many there were.

    Scan until two scans in a row find none, since a process may fork during a scan. Give up after `GIVE_UP_SECONDS` on
    processes that the kernel does not let end.
    """
    variable, file = f"FORGELINE_JOB={job_id}".encode(), mark.stat()
    killed: set[int] = set()
    clean_scans, deadline = 0, time.monotonic() + GIVE_UP_SECONDS
    while clean_scans < 2 and time.monotonic() < deadline:
        pids = [pid for pid in _list_pids() if pid != os.getpid() and _kill_if_marked(pid, variable, file)]
        killed.update(pids)
        clean_scans = 0 if pids else clean_scans + 1
        if pids:
            time.sleep(POLL_SECONDS)
    return len(killed)


def _kill_if_marked(pid: int, variable: bytes, file: os.stat_result) -> bool:
    try:
        descriptor = os.pidfd_open(pid)  # first, so that the pid can't be reused between the check and the kill
    except ProcessLookupError:
        return False
    try:
        is_marked = _has_variable(pid, variable) or _has_open(pid, file)
        if is_marked:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return is_marked
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


def _list_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def _parent_of(pid: int) -> int:
    """Raises OSError, ValueError. A process's name may contain spaces and brackets (proc(5))."""
    stat = (PROC / str(pid) / "stat").read_bytes()
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def _has_variable(pid: int, variable: bytes) -> bool:
    try:
        return variable in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        return any(_is_same_file(entry, file) for entry in os.scandir(PROC / str(pid) / "fd"))
    except OSError:
        return False


def _is_same_file(entry: os.DirEntry[str], file: os.stat_result) -> bool:
    try:
        target = entry.stat()
    except OSError:
        return False
    return (target.st_dev, target.st_ino) == (file.st_dev, file.st_ino)
