"""Processes: started on a core of their own, ended by their handle, and what the kernel says that they cost."""

import contextlib
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

TICKS = os.sysconf("SC_CLK_TCK")
LISTENING = b"listening on http://"
# For what reads by asyncio's own loop, 256 kB at a time. Unless the C library keeps that memory, as it does once larger
# answers have come, each read takes it from the kernel and gives it back, and a chunk costs 83 µs instead of 57.
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 29)}


class StartFailed(Exception):
    """A process ended, or said nothing, before it served."""


class Served:
    """A process that serves on a port of its own choosing, which it prints in one line once it serves."""

    def __init__(  # noqa: PLR0913 - the last three by name, with defaults
        self,
        command: list[str],
        core: int,
        log: Path,
        *,
        port: int = 0,
        variables: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> None:
        """`port` is for a program that can't choose one itself: it serves once that takes connections."""
        self._log = log
        with log.open("wb") as errors, on_core(core):
            # It gets a pipe that nobody writes to: the mock upstream and the floors end when it closes,
            # so they do not outlive a benchmark that was killed.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment() | dict(variables or {}),
                bufsize=0,
            )
        self.pid = self._process.pid
        try:
            self.port = self._wait_for(port, timeout) if port else self._read_port(timeout)
        except BaseException:
            self.end()
            raise

    def _wait_for(self, port: int, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return port
            time.sleep(0.02)
        raise StartFailed("\n".join([f"nothing serves on port {port}; its last words:", *self._last_words()]))

    def _read_port(self, timeout: float) -> int:
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], timeout)
        line = out.readline() if ready else b""
        if not line.startswith(LISTENING):
            why = f"printed {line!r}" if line else "ended" if ready else f"said nothing for {timeout:.0f} s"
            raise StartFailed("\n".join([f"it {why} instead of serving; its last words:", *self._last_words()]))
        return int(line.rsplit(b":", 1)[1])

    def _last_words(self) -> list[str]:
        return self._log.read_text(errors="replace").strip().splitlines()[-12:]

    def last_error(self) -> str:
        """The log goes away with the benchmark's folder, so what it says of a failure is shown."""
        lines = self._log.read_text(errors="replace").splitlines()
        return next((line[-2000:] for line in reversed(lines) if '"level":"error"' in line or "Error" in line), "")

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            close(pipe)


def close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()


def environment() -> dict[str, str]:
    """Ours without Forgeline's options and without AWS's: what is measured is as shipped, and meets only mocks."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FORGELINE_", "AWS_"))}


def allow_open_files() -> None:
    """As many as this user may have open, for all that is started from here: 1,000 streams are 2,000 sockets."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    """For a program that can't choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def cores() -> tuple[int, int, int]:
    """The cores of what is measured, of the upstream and of the client. With two, upstream and client share one."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[min(1, len(mine) - 1)], mine[min(2, len(mine) - 1)]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started inside inherits the core: no moment of its life is spent on another."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of its children, and of those it has already buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # a child that has just ended, and counts as buried
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(child) for child in children(pid))


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def reset_peak(pid: int) -> None:
    with contextlib.suppress(OSError):  # where the kernel refuses, the peak is the one of its whole life
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """Of the process and its children: each one's own peak."""
    return _tree_mb(pid, "VmHWM:")


def memory_mb(pid: int) -> float:
    """What the process and its children hold now."""
    return _tree_mb(pid, "VmRSS:")


def _tree_mb(pid: int, name: str) -> float:
    held = 0.0
    with contextlib.suppress(OSError):  # a child may end at any time
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                held = int(line.split()[1]) / 1024
    return held + sum(_tree_mb(child, name) for child in children(pid))


def cores_busy(cores: Collection[int]) -> float:
    """CPU seconds that all processes of this machine have used on these cores; what the hypervisor took counts too."""
    names = {f"cpu{core}" for core in cores}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, values)
            busy += user + nice + system + irq + softirq + steal
    return busy / TICKS
