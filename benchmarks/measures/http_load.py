"""HTTP requests to any target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from benchmarks.clients import http_load
from benchmarks.effort import Effort
from benchmarks.harness import Harness
from benchmarks.outcome import Outcome
from benchmarks.targets import RequestSpec


@dataclass(frozen=True)
class HttpLoad:
    """A closed loop of clients, for `seconds`, or `repeats` requests of each client."""

    target: str
    spec: RequestSpec
    clients: int = 1
    seconds: float = 0
    repeats: int = 1_000_000
    ramp: float = 0
    unmeasured: int = 0

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        target = harness.target(self.target)
        request = target.prepare(self.spec)
        plan = http_load.Plan(
            port=target.process.port,
            path=request.path,
            body=str(request.body),
            marker=request.marker,
            chunks=request.chunks,
            end=request.end,
            accept=request.accept,
            headers=dict(request.headers),
            processes=harness.measured_processes(target.process.pid),
            clients=effort.limit_clients(self.clients),
            seconds=self.seconds * effort.scale,
            repeats=self.repeats,
            ramp=self.ramp * effort.scale,
            unmeasured=self.unmeasured,
        )
        return harness.run_client("clients.http_load", plan)


@dataclass(frozen=True)
class AddedLatency:
    """`factor` times the p50 of a load minus the p50 of the same load directly on the upstream, run right after it."""

    load: HttpLoad
    factor: int = 1

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        outcome = self.load(harness, effort)
        spec = replace(self.load.spec, more_models=())
        upstream_outcome = replace(self.load, target="upstream", spec=spec)(harness, effort)
        added = self.factor * (outcome.latency_p50 - upstream_outcome.latency_p50)
        return msgspec.structs.replace(outcome, added_ms=added)


@dataclass(frozen=True)
class CountedTogether:
    """A load in which `factor` requests count as one."""

    load: HttpLoad
    factor: int

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        outcome = self.load(harness, effort)
        return msgspec.structs.replace(outcome, responses=outcome.responses / self.factor)
