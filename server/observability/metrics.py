"""The metrics of /metrics. Requests are counted as they end; gauges are read at each scrape.

Labels are bounded: a model is one that a preset defines, an address a route template, a method one that HTTP knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set, Sized
from functools import cache
from typing import get_args

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infraforge_runner.jobs.model import Job, JobState
from infraforge_runner.runner import JobRunner
from pipeline.messages import Failure, Result
from pipeline.runtime import Runtime
from pipeline.stage import Measurement
from pipeline.streams import Streams
from server.config import VERSION

log = structlog.get_logger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the output

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MILLISECONDS = 1000

OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
JOB_BUCKETS = (1, 5, 15, 60, 300, 600, 1200, 1800, 2700, 3600, 5400, 7200, 14400)
DURATION_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of one server. It has a registry of its own: two servers in one process don't share numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("forgeline_build", "The version that is running.", registry=self.registry).info({"version": VERSION})
        self._requests = self._counter("http_requests", "Answered HTTP requests.", "address", "method", "status")
        self._errors = self._counter(
            "errors", "Requests, and messages on sockets, that were answered with an error.", "code"
        )
        self._inferences = self._counter("inferences", "Answers of a model: ok, or an error's code.", "model", "code")
        self._tokens = self._counter(
            "tokens", "Tokens of the model that answered, as its provider counts.", "model", "direction"
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's last byte to the first token of its answer.",
            "model",
            buckets=DURATION_BUCKETS,
        )
        self._duration = self._histogram(
            "inference_duration_seconds",
            "From a request's last byte to the end of its answer.",
            "model",
            buckets=DURATION_BUCKETS,
        )
        self._overhead = self._histogram(
            "overhead_seconds",
            "The part of an answer's time that was Forgeline's own.",
            "model",
            buckets=OVERHEAD_BUCKETS,
        )
        self._preset_changes = self._counter(
            "preset_changes", "Presets added, changed, removed, rejected.", "kind", "change"
        )
        self._job_duration = self._histogram(
            "job_duration_seconds",
            "From the start of a deploy job to its end.",
            "action",
            "status",
            buckets=JOB_BUCKETS,
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Callable[..., Counter]:
        """A function from the values of labels to a counter. It is cached, since `labels` is slow."""
        return cache(Counter(f"forgeline_{name}", documentation, labels, registry=self.registry).labels)

    def _histogram(
        self, name: str, documentation: str, *labels: str, buckets: Sequence[float]
    ) -> Callable[..., Histogram]:
        return cache(
            Histogram(f"forgeline_{name}", documentation, labels, buckets=buckets, registry=self.registry).labels
        )

    def count_request(self, address: str, method: str, status: int) -> None:
        self._requests(address, method, status).inc()

    def count_error(self, code: str) -> None:
        self._errors(code).inc()

    def count_preset_change(self, kind: str, change: str) -> None:
        self._preset_changes(kind, change).inc()

    def observe_outcome(self, outcome: Result | Failure) -> None:
        """Count one model's answer or failure."""
        model = outcome.model
        if isinstance(outcome, Failure):
            self._inferences(model, outcome.error.code).inc()
            return
        self._inferences(model, "ok").inc()
        metadata, usage = outcome.envelope["metadata"], outcome.envelope["response"]["usage"]
        self._duration(model).observe(metadata["duration_ms"] / MILLISECONDS)
        self._overhead(model).observe(metadata["overhead_ms"] / MILLISECONDS)
        if metadata["time_to_first_token_ms"] is not None:
            self._first_token(model).observe(metadata["time_to_first_token_ms"] / MILLISECONDS)
        self._tokens(metadata["model"], "input").inc(usage["input_tokens"] or 0)
        self._tokens(metadata["model"], "output").inc(usage["output_tokens"] or 0)

    def observe_job(self, job: Job) -> None:
        """Count a job that has ended; called at each change of its status."""
        result = job.status.result
        has_begun = job.status.started_at is not None
        if job.is_finished and has_begun and result is not None:
            self._job_duration(job.spec.action, job.status.status).observe(result.duration_seconds)

    def register_state(self, runtime: Runtime, streams: Streams, sockets: Sized, jobs: JobRunner) -> None:
        """Report the state of these at each scrape."""
        self.registry.register(_StateCollector(streams, sockets, jobs))
        names = {metric.name for metric in self.registry.collect()}
        self.registry.register(_GaugeCollector(runtime, names))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _StateCollector(Collector):
    """The state of streams, sockets and jobs at the time of a scrape."""

    def __init__(self, streams: Streams, sockets: Sized, jobs: JobRunner) -> None:
        self._streams = streams
        self._sockets = sockets
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("forgeline_open_streams", "Answers under way.", self._streams.running_count)
        yield GaugeMetricFamily("forgeline_open_sockets", "Open WebSockets.", len(self._sockets))
        yield CounterMetricFamily(
            "forgeline_readers_cut", "Readers of a stream that lagged and were cut off.", self._streams.aborted_readers
        )
        yield GaugeMetricFamily(
            "forgeline_log_followers", "Followers of the logs of jobs.", self._jobs.log_reader_count
        )
        jobs = GaugeMetricFamily("forgeline_jobs", "Deploy jobs that are kept, by their status.", labels=["status"])
        counts = self._jobs.count_by_state()
        for status in get_args(JobState):
            jobs.add_metric([status], counts[status])
        yield jobs
        yield GaugeMetricFamily("forgeline_data_free_bytes", "Room for jobs and their logs.", self._jobs.free_bytes)


class _Family:
    """The metric of all measurements that have the name, the type and the labels of `first`."""

    def __init__(self, first: Measurement) -> None:
        self._type, self._labels = first.type, list(first.labels)
        make = CounterMetricFamily if first.type == "counter" else GaugeMetricFamily
        name = f"forgeline_{first.name}"
        self.metric: GaugeMetricFamily | CounterMetricFamily = make(
            name, first.documentation, labels=["model", *self._labels]
        )

    def add(self, model: str, measurement: Measurement) -> bool:
        """Add it, unless it has another type or other labels. Returns whether it was added."""
        if (measurement.type, list(measurement.labels)) != (self._type, self._labels):
            return False
        self.metric.add_metric([model, *measurement.labels.values()], measurement.value)
        return True


class _GaugeCollector(Collector):
    """The gauges of stages and providers. Those of one name are one metric, if their types and labels agree.

    `reserved_names` are those of the server's own metrics.
    """

    def __init__(self, runtime: Runtime, reserved_names: Set[str]) -> None:
        self._runtime = runtime
        self._reserved_names = reserved_names

    def collect(self) -> Iterator[Metric]:
        families: dict[str, _Family] = {}
        for model in self._runtime.models:
            for measurement in self._runtime.measurements(model):
                name = measurement.name
                family = families.get(name) or _Family(measurement)
                if family.metric.name in self._reserved_names or not family.add(model, measurement):
                    log.warning("gauge_name_in_use", name=name, model=model)
                else:
                    families[name] = family
        yield from (family.metric for family in families.values())
