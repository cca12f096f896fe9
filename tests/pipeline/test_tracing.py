"""When traces are on: OpenTelemetry's own variables say so."""

from __future__ import annotations

import pytest

from pipeline.otel import JobIds
from pipeline.tracing import is_asked, settings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "asked"),
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
def test_an_exporter_or_its_address_switches_traces_on(environ: dict[str, str], asked: bool) -> None:
    assert is_asked(environ) is asked


def test_a_process_of_ours_is_given_opentelemetrys_variables_and_no_others() -> None:
    assert settings({**ENDPOINT, "FORGELINE_API_KEYS": "secret", "PATH": "/bin"}) == ENDPOINT


def test_the_first_span_of_a_jobs_process_has_the_id_that_its_successor_would_give_it() -> None:
    job = "f3b1d9c2-6a44-4b0e-9d7a-0123456789ab"
    first, successor = JobIds(job), JobIds(job)
    assert first.generate_span_id() == successor.generate_span_id() == 0xF3B1D9C26A444B0E
    assert first.generate_span_id() != successor.generate_span_id()
    assert first.generate_trace_id() == successor.generate_trace_id()
