"""The base of load clients: read a plan, meter the costs of a run, print an outcome."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from benchmarks import processes as proc
from benchmarks.outcome import Outcome

HANG_TIMEOUT = 30  # seconds

PlanType = TypeVar("PlanType")


class MeasuredProcesses(msgspec.Struct, frozen=True):
    """The processes whose costs are metered, and their cores, on which no other process should run."""

    target: int  # pid; 0: the client itself
    upstream: int  # pid; 0: none
    cores: list[int]


class WrongResponse(Exception):
    """A response is wrong. The first one ends the run: figures from wrong responses are worthless."""


class CostMeter:
    """Meters the costs since its creation."""

    def __init__(self, processes: MeasuredProcesses) -> None:
        self._processes = processes
        self._target = processes.target or os.getpid()
        proc.reset_peak_memory(self._target)
        self._start_costs = self._costs()
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def outcome(self, **counted: Any) -> Outcome:
        duration = self.seconds
        costs = zip(self._start_costs, self._costs(), strict=True)
        cpu_seconds, upstream, client, total = (now - before for before, now in costs)
        by_pid = {self._target: cpu_seconds, self._processes.upstream: upstream, os.getpid(): client}
        return Outcome(
            seconds=duration,
            cpu_seconds=cpu_seconds,
            peak_mb=proc.peak_mb(self._target),
            client_busy=client / duration,
            upstream_busy=upstream / duration,
            other_busy=max(0.0, total - sum(by_pid.values())) / duration,
            **counted,
        )

    def _costs(self) -> list[float]:
        """CPU seconds so far: of the target, the upstream, this process, and all processes on these cores."""
        pids = (self._target, self._processes.upstream, os.getpid())
        seconds = [proc.cpu_seconds(pid) if pid else 0.0 for pid in pids]
        return [*seconds, proc.busy_seconds(self._processes.cores)]


def main(plan_type: type[PlanType], run: Callable[[PlanType], Awaitable[Outcome]]) -> int:
    """Run the plan on standard input and print the outcome. Without one, print why on standard error and return 1."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=plan_type)
    gc.disable()  # a collection would distort latencies, and there are few cycles here
    try:
        outcome = asyncio.run(_run(run, plan))
    except (WrongResponse, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(outcome).decode())
    return 0


async def _run(run: Callable[[PlanType], Awaitable[Outcome]], plan: PlanType) -> Outcome:
    return await run(plan)
