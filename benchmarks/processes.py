"""Processes: start them on a core, stop them, and read their CPU time and memory from /proc."""

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

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
LISTENING_PREFIX = b"listening on http://"
# For programs that read through asyncio's own event loop, 256 kB at a time: without these settings the C library
# returns that memory to the kernel after each read (docs/PERFORMANCE.md, "How to read the table").
MALLOC_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 29)}


class StartError(Exception):
    """A process ended, or did not respond, before it served."""


class ServerProcess:
    """A server on a port that it chooses itself and prints in one line as soon as it serves."""

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
        """`port` is for a program that can't choose one: it counts as started when that port accepts connections."""
        self._log = log
        with log.open("wb") as errors, pinned_to_core(core):
            # Nothing is written to this pipe. The mock upstream and the floors exit when it closes, so they do not
            # outlive a benchmark that was killed.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_environment() | dict(variables or {}),
                bufsize=0,
            )
        self.pid = self._process.pid
        try:
            self.port = self._wait_for_port(port, timeout) if port else self._read_port(timeout)
        except BaseException:
            self.stop()
            raise

    def _wait_for_port(self, port: int, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return port
            time.sleep(0.02)
        raise StartError("\n".join([f"nothing serves on port {port}; its last words:", *self._log_tail()]))

    def _read_port(self, timeout: float) -> int:
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], timeout)
        line = stdout.readline() if ready else b""
        if not line.startswith(LISTENING_PREFIX):
            reason = f"printed {line!r}" if line else "ended" if ready else f"said nothing for {timeout:.0f} s"
            raise StartError("\n".join([f"it {reason} instead of serving; its last words:", *self._log_tail()]))
        return int(line.rsplit(b":", 1)[1])

    def _log_tail(self) -> list[str]:
        return self._log.read_text(errors="replace").strip().splitlines()[-12:]

    def last_error_line(self) -> str:
        """The last error in the log, to print it: the log is deleted with the benchmark's folder."""
        lines = self._log.read_text(errors="replace").splitlines()
        return next((line[-2000:] for line in reversed(lines) if '"level":"error"' in line or "Error" in line), "")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            close_pipe(pipe)


def close_pipe(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()


def clean_environment() -> dict[str, str]:
    """This process's environment without variables of Forgeline and AWS: targets use defaults and reach only mocks."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FORGELINE_", "AWS_"))}


def raise_open_file_limit() -> None:
    """Raise the limit of open files to the hard limit, also for child processes: 1,000 streams are 2,000 sockets."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def free_port() -> int:
    """Find a free port, for a program that can't choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def cores() -> tuple[int, int, int]:
    """The cores of the target, the upstream and the load client. With two cores, upstream and client share one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[min(1, len(available) - 1)], available[min(2, len(available) - 1)]


@contextlib.contextmanager
def pinned_to_core(core: int) -> Iterator[None]:
    """Pin this process to a core: processes that are started meanwhile inherit it from their first instruction on."""
    previous = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, previous)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, including children that have been waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # a child that has just ended: its time is in its parent's
    return sum(map(int, fields[11:15])) / CLOCK_TICKS + sum(cpu_seconds(child) for child in child_pids(pid))


def child_pids(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def reset_peak_memory(pid: int) -> None:
    with contextlib.suppress(OSError):  # without this right, the peak is that of the whole life
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The sum of the peaks of a process and its children."""
    return _process_tree_mb(pid, "VmHWM:")


def current_memory_mb(pid: int) -> float:
    """The resident memory of a process and its children now."""
    return _process_tree_mb(pid, "VmRSS:")


def _process_tree_mb(pid: int, name: str) -> float:
    megabytes = 0.0
    with contextlib.suppress(OSError):  # a child may end at any time
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                megabytes = int(line.split()[1]) / 1024
    return megabytes + sum(_process_tree_mb(child, name) for child in child_pids(pid))


def busy_seconds(cores: Collection[int]) -> float:
    """CPU seconds that all processes have used on these cores, including time stolen by the hypervisor."""
    names = {f"cpu{core}" for core in cores}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, values)
            busy += user + nice + system + irq + softirq + steal
    return busy / CLOCK_TICKS
