"""What all load clients share: a plan in, costs counted around the work, an outcome out."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from benchmarks import proc
from benchmarks.outcome import Outcome

HANGS = 30  # seconds after which what has not been answered counts as hanging

PlanType = TypeVar("PlanType")


class Watched(msgspec.Struct, frozen=True):
    """The processes whose costs are counted, and the cores on which all of it runs, and nothing else should."""

    measured: int  # 0: the client itself
    upstream: int  # 0: there is none
    cores: list[int]


class WrongAnswer(Exception):
    """A figure from wrong answers is worth nothing: the first one ends the run."""


class Meter:
    """Counts from its making on."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._measured = watched.measured or os.getpid()
        proc.reset_peak(self._measured)
        self._before = self._costs()
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def outcome(self, **counted: Any) -> Outcome:
        took = self.seconds
        cpu, upstream, mine, everything = (new - old for old, new in zip(self._before, self._costs(), strict=True))
        distinct = {self._measured: cpu, self._watched.upstream: upstream, os.getpid(): mine}
        return Outcome(
            seconds=took,
            cpu=cpu,
            peak_mb=proc.peak_mb(self._measured),
            client_busy=mine / took,
            upstream_busy=upstream / took,
            others_busy=max(0.0, everything - sum(distinct.values())) / took,
            **counted,
        )

    def _costs(self) -> list[float]:
        """CPU seconds so far: of the measured process, the upstream, this one, and all that ran on these cores."""
        pids = (self._measured, self._watched.upstream, os.getpid())
        used = [proc.cpu_seconds(pid) if pid else 0.0 for pid in pids]
        return [*used, proc.cores_busy(self._watched.cores)]


def main(plan_type: type[PlanType], run: Callable[[PlanType], Awaitable[Outcome]]) -> int:
    """Runs the plan that standard input holds. Says on standard error why there is no outcome, and returns 1."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=plan_type)
    gc.disable()  # a pause would show up in the latencies, and nothing here makes cycles worth one
    try:
        outcome = asyncio.run(_await(run, plan))
    except (WrongAnswer, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(outcome).decode())
    return 0


async def _await(run: Callable[[PlanType], Awaitable[Outcome]], plan: PlanType) -> Outcome:
    return await run(plan)
