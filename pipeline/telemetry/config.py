"""Configuration of tracing by OpenTelemetry's own environment variables. Imports nothing of it while tracing is off."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

log = structlog.get_logger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_enabled(environ: Mapping[str, str]) -> bool:
    """Whether an exporter or its endpoint is set, and tracing is not disabled."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environ.get(name) for name in _ENDPOINTS)


def configure_tracing(job_id: str | None = None) -> Tracing | None:
    """Create tracing as the environment configures it; `job_id` is that of a supervisor's job.

    Returns None where tracing is off. Also where it can't be created, with a warning in the log: the variables are
    often set for a whole machine, and must not keep the server from starting.
    """
    if not is_enabled(os.environ):
        return None
    try:
        from pipeline.telemetry import otel  # noqa: PLC0415 - an optional dependency, slow to import

        return otel.create_tracing(os.environ, job_id)
    except ImportError as error:
        log.warning("tracing_unavailable", error="install the extra `traces`", missing=error.name)
    except Exception as error:  # an exporter may raise anything on invalid variables
        log.warning("tracing_unavailable", error=str(error))
    return None


def otel_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return OpenTelemetry's variables, which a child process needs to export its spans."""
    return {name: value for name, value in environ.items() if name.startswith("OTEL_")}
