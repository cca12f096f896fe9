"""Start-up time of a process, and its memory after that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks import forgeline, processes
from benchmarks.effort import Effort
from benchmarks.harness import Harness, MeasureError
from benchmarks.outcome import Outcome

# The modules in use, because the packages themselves import little.
IMPORTS = "import tornado.web, tornado.httpserver, tornado.websocket, aiohttp, aiobotocore.session, structlog"


@dataclass(frozen=True)
class ImportTime:
    """A Python process that imports Forgeline's libraries and exits."""

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        started_at = time.perf_counter()
        with processes.pinned_to_core(harness.target_core):
            process = subprocess.Popen([sys.executable, "-c", IMPORTS], env=processes.clean_environment())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise MeasureError(f"python -c {IMPORTS!r} failed")
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return Outcome(
            seconds=time.perf_counter() - started_at, cpu_seconds=cpu_seconds, peak_mb=usage.ru_maxrss / 1024
        )


@dataclass(frozen=True)
class StartupTime:
    """Forgeline with the shipped presets and an empty data folder, until /readyz returns 200."""

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        work_dir = harness.work_dir / f"start-{os.urandom(4).hex()}"
        work_dir.mkdir()
        started_at = time.perf_counter()
        process = processes.ServerProcess(forgeline.command(work_dir), harness.target_core, work_dir / "log")
        try:
            forgeline.wait_ready(process.port)
            duration = time.perf_counter() - started_at
            cpu_seconds, peak_mb = processes.cpu_seconds(process.pid), processes.peak_mb(process.pid)
            return Outcome(seconds=duration, cpu_seconds=cpu_seconds, peak_mb=peak_mb)
        finally:
            process.stop()
