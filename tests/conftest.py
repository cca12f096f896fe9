"""A test's log is plain text: structlog's default, where rich is installed, draws every local variable, for seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture
def no_sdk_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry's SDK finds no fault with what we do: a span that has ended is not touched."""
    yield
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []
