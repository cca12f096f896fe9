"""Whether requests and jobs are traced: OpenTelemetry's own variables say so, and nothing of it is imported before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from pipeline.otel import Tracing

log = structlog.get_logger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_asked(environ: Mapping[str, str]) -> bool:
    """Whether an exporter is named, or an address for one, and nothing switches it off again."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environ.get(name) for name in _ENDPOINTS)


def configure(job_id: str | None = None) -> Tracing | None:
    """Tracing, as the environment asks for it; `job_id` is that of a process that has one job.

    None where it is off. Also where it can't be had, which the log says: such variables are often set for a whole
    machine, and no trace is worth an answer.
    """
    if not is_asked(os.environ):
        return None
    try:
        from pipeline import otel  # noqa: PLC0415 - who traces nothing need not have it, nor wait for its import

        return otel.configure(os.environ, job_id)
    except ImportError as error:
        log.warning("no traces: install the extra `traces`", missing=error.name)
    except Exception as error:  # whatever an exporter makes of its variables
        log.warning("no traces", reason=str(error))
    return None


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """OpenTelemetry's variables: what a process needs to trace as this one does."""
    return {name: value for name, value in environ.items() if name.startswith("OTEL_")}
