"""How long a process takes to start, and how much memory it then has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks import proc, product
from benchmarks.effort import Effort
from benchmarks.outcome import Outcome
from benchmarks.world import MeasureFailed, World

# What each is used by, and not their packages' empty beginnings.
IMPORTS = "import tornado.web, tornado.httpserver, tornado.websocket, aiohttp, aiobotocore.session, structlog"


@dataclass(frozen=True)
class Import:
    """A Python that imports what Forgeline is made of, and ends."""

    def __call__(self, world: World, effort: Effort) -> Outcome:
        began = time.perf_counter()
        with proc.on_core(world.measured):
            process = subprocess.Popen([sys.executable, "-c", IMPORTS], env=proc.environment())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise MeasureFailed(f"python -c {IMPORTS!r} failed")
        cpu = usage.ru_utime + usage.ru_stime
        return Outcome(seconds=time.perf_counter() - began, cpu=cpu, peak_mb=usage.ru_maxrss / 1024)


@dataclass(frozen=True)
class Ready:
    """Forgeline with the shipped presets and an empty data folder, up to the first 200 of /readyz."""

    def __call__(self, world: World, effort: Effort) -> Outcome:
        work = world.work / f"start-{os.urandom(4).hex()}"
        work.mkdir()
        began = time.perf_counter()
        served = proc.Served(product.command(work), world.measured, work / "log")
        try:
            product.wait_ready(served.port)
            took = time.perf_counter() - began
            return Outcome(seconds=took, cpu=proc.cpu_seconds(served.pid), peak_mb=proc.peak_mb(served.pid))
        finally:
            served.end()
