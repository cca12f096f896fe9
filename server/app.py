"""The route table: every path on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from tornado.web import Application, RequestHandler

from server.handlers.anthropic import MessagesHandler
from server.handlers.base import BaseHandler, NotFoundHandler
from server.handlers.console import ConsoleHandler
from server.handlers.docs import DocsFileHandler, DocsHandler, OpenApiHandler
from server.handlers.emd import EmdModelsHandler, EmdStatusHandler
from server.handlers.health import HealthHandler, ReadyHandler
from server.handlers.hyperpod import (
    CancelHandler,
    DeployHandler,
    DestroyHandler,
    HyperPodPresetsHandler,
    JobHandler,
    JobsHandler,
    StacksHandler,
)
from server.handlers.inference import EmdInferenceHandler, ModelHandler, MultiInferenceHandler, StreamHandler
from server.handlers.job_logs import JobLogsHandler
from server.handlers.metrics import MetricsHandler
from server.handlers.models import ModelsHandler
from server.handlers.openai import ChatCompletionsHandler, V1ModelHandler, V1ModelsHandler
from server.handlers.socket import LogSocketHandler, SocketHandler, StreamSocketHandler
from server.handlers.streams import StreamsHandler
from server.observability.spans import TracedApplication
from server.openapi.route import UNKNOWN_PATH, Route
from server.services import Services

log = structlog.get_logger(__name__)

PING_SECONDS = 20  # between pings on a WebSocket; a peer that does not answer is disconnected

ROUTES: Final = (
    # Tried in this order: the most frequent come first.
    Route("/api/models/{name}", ModelHandler),
    Route("/api/stream/{model_name}", StreamHandler),
    Route("/api/multi-inference", MultiInferenceHandler),
    Route("/v1/chat/completions", ChatCompletionsHandler),
    Route("/v1/messages", MessagesHandler),
    Route("/v1/models", V1ModelsHandler),
    Route("/v1/models/{id}", V1ModelHandler),
    Route("/api/models", ModelsHandler),
    Route("/api/claude4", ModelHandler, name="claude4"),
    Route("/api/nova", ModelHandler, name="nova"),
    Route("/api/emd/models", EmdModelsHandler),
    Route("/api/emd/status", EmdStatusHandler),
    Route("/api/emd/{model_key}", EmdInferenceHandler),
    Route("/api/streams/{stream_id}", StreamsHandler),
    Route("/ws", SocketHandler),
    Route("/ws/stream/{model_name}", StreamSocketHandler),
    Route("/ws/hyperpod/jobs/{job_id}/logs", LogSocketHandler),
    Route("/api/hyperpod/deploy", DeployHandler),
    Route("/api/hyperpod/destroy", DestroyHandler),
    Route("/api/hyperpod/presets", HyperPodPresetsHandler),
    Route("/api/hyperpod/stacks", StacksHandler),
    Route("/api/hyperpod/jobs", JobsHandler),
    Route("/api/hyperpod/jobs/{id}", JobHandler),
    Route("/api/hyperpod/jobs/{id}/cancel", CancelHandler),
    Route("/api/hyperpod/jobs/{id}/logs", JobLogsHandler),
    Route("/healthz", HealthHandler),
    Route("/readyz", ReadyHandler),
    Route("/metrics", MetricsHandler),
    Route("/api/openapi.json", OpenApiHandler),
    Route("/api/docs", DocsHandler),
    Route("/api/docs/docs.js", DocsFileHandler, name="docs.js"),
    Route("/api/docs/docs.css", DocsFileHandler, name="docs.css"),
    Route("/", ConsoleHandler),
    Route("/static/{path:.+}", ConsoleHandler),
)


def make_app(services: Services, routes: Sequence[Route] = ROUTES) -> Application:
    make = Application if services.tracing is None else partial(TracedApplication, services.tracing)
    return make(
        list(routes),
        default_handler_class=NotFoundHandler,
        default_handler_args={"route_path": UNKNOWN_PATH},
        log_function=_log_request,
        services=services,
        routes=tuple(routes),
        websocket_max_message_size=services.options.max_body,
        websocket_ping_interval=PING_SECONDS,
    )


def _log_request(handler: RequestHandler) -> None:
    """Write the access log's line of a request: never its text, its frames or its key."""
    if isinstance(handler, BaseHandler):
        method = str(handler.request.method)
        log.info(
            "request",
            method=method,
            path=handler.request.path,
            status=handler.get_status(),
            request_id=handler.request_id,
            duration_ms=round(handler.request.request_time() * 1000, 3),
            **handler.log_fields(),
        )
        known_method = method if method in handler.SUPPORTED_METHODS else "other"
        handler.services.metrics.count_request(handler.route_path, known_method, handler.get_status())
