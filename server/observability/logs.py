"""The log: where it goes (standard error, as JSON lines or for a terminal), and the fields of answers in it."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog

from pipeline.errors import ForgelineError
from pipeline.messages import Failure, Result
from pipeline.streams import Stream


def configure(log_format: str) -> None:
    """`log_format` is json, console, or auto: console on a terminal."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor]
    if console:
        # Where rich is installed, structlog's default prints local variables too: texts, frames and keys.
        plain = structlog.dev.plain_traceback
        rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _route_other_libraries(shared, rendering)


def _route_other_libraries(
    shared: list[structlog.typing.Processor], rendering: list[structlog.typing.Processor]
) -> None:
    """Render what Tornado, aiohttp and others log by `logging` like our own events."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _to_json(event: object, **kwargs: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def outcome_fields(stream: Stream) -> list[dict[str, Any]]:
    """The access log's entry for each model of a stream: outcome, tokens and times; never text, frames or keys.

    A model without an outcome has the code of what stopped the stream, or `running`.
    """
    return [
        {"model": model, **_outcome_fields(stream.outcomes.get(model), stream.stop_reason)} for model in stream.models
    ]


def _outcome_fields(outcome: Result | Failure | None, stop_reason: ForgelineError | None) -> dict[str, Any]:
    if outcome is None:
        return {"code": "running" if stop_reason is None else stop_reason.code}
    if isinstance(outcome, Failure):
        return {"code": outcome.error.code}
    usage, metadata = outcome.envelope["response"]["usage"], outcome.envelope["metadata"]
    fields = {"code": "ok", **usage}
    if "fallback_from" in metadata:
        fields["answered_by"] = metadata["model"]
    return fields | {name: metadata[name] for name in ("time_to_first_token_ms", "duration_ms", "overhead_ms")}
