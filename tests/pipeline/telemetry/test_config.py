"""Tracing configuration: which variables enable it, and the ids of a job's spans."""

from __future__ import annotations

import pytest

from pipeline.telemetry.config import is_enabled, otel_variables
from pipeline.telemetry.otel import JobIdGenerator

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "gateway", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_tracing_is_enabled_by_exporter_or_endpoint(environ: dict[str, str], expected: bool) -> None:
    assert is_enabled(environ) is expected


def test_otel_variables_excludes_other_variables() -> None:
    assert otel_variables({**ENDPOINT, "FORGELINE_API_KEYS": "secret", "PATH": "/bin"}) == ENDPOINT


def test_job_id_generator_gives_successor_same_first_span_id() -> None:
    job = "f3b1d9c2-6a44-4b0e-9d7a-0123456789ab"
    first, successor = JobIdGenerator(job), JobIdGenerator(job)
    assert first.generate_span_id() == successor.generate_span_id() == 0xF3B1D9C26A444B0E
    assert first.generate_span_id() != successor.generate_span_id()
    assert first.generate_trace_id() == successor.generate_trace_id()
