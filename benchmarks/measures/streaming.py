"""Streams other than one HTTP response each: on one WebSocket, held open, and from Bedrock."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from benchmarks.clients import open_streams, socket_streams
from benchmarks.effort import Effort
from benchmarks.floors import bedrock
from benchmarks.harness import Harness
from benchmarks.outcome import Outcome
from benchmarks.targets import RequestSpec, forgeline_body

WARM_UP_STREAMS = 20  # before the memory of a process is measured


@dataclass(frozen=True)
class WebSocketStreams:
    """Many streams on one WebSocket of Forgeline."""

    spec: RequestSpec
    streams: int
    seconds: float

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        process = harness.target("forgeline").process
        plan = socket_streams.Plan(
            port=process.port,
            request={"model": self.spec.preset, **forgeline_body(self.spec)},
            chunks=self.spec.chunks,
            processes=harness.measured_processes(process.pid),
            streams=effort.limit_clients(self.streams),
            seconds=self.seconds * effort.scale,
        )
        return harness.run_client("clients.socket_streams", plan)


@dataclass(frozen=True)
class OpenStreams:
    """Streams that stay open, at a fresh process: an older one has free memory that streams would reuse."""

    target: str
    spec: RequestSpec
    streams: int
    seconds: float

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        with harness.fresh_target(self.target) as target:
            request = target.prepare(self.spec)
            plan = open_streams.Plan(
                port=target.process.port,
                path=request.path,
                body=str(request.body),
                accept=request.accept,
                marker=request.marker,
                chunks=request.chunks,
                processes=harness.measured_processes(target.process.pid),
                streams=WARM_UP_STREAMS,
                seconds=0,
            )
            # Excludes memory that is allocated once, for the first stream.
            harness.run_client("clients.open_streams", plan)
            streams, seconds = effort.limit_clients(self.streams), self.seconds * effort.scale
            return harness.run_client("clients.open_streams", replace(plan, streams=streams, seconds=seconds))


@dataclass(frozen=True)
class BedrockStreams:
    """aiobotocore alone, reading the streams that Forgeline would read."""

    spec: RequestSpec
    clients: int
    seconds: float

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        plan = bedrock.Plan(
            model=self.spec.model,
            chunks=self.spec.chunks,
            processes=harness.measured_processes(0),
            clients=effort.limit_clients(self.clients),
            seconds=self.seconds * effort.scale,
        )
        return harness.run_client("floors.bedrock", plan, core=harness.target_core)
