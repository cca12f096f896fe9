"""Where the log goes: standard error, as JSON lines or for a person's terminal."""

from __future__ import annotations

import logging
import sys

import msgspec
import structlog


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
        # Where rich is installed, structlog's own choice prints the local variables too: texts, frames and keys.
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
    """What tornado, aiohttp and others log by `logging` looks like our own."""
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
