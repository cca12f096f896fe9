"""The route table: every path on one screen."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import structlog
from tornado.routing import PathMatches, Rule
from tornado.web import Application, RequestHandler, url

from server.handlers.anthropic import MessagesHandler
from server.handlers.base import BaseHandler, NotFoundHandler
from server.handlers.console import ConsoleHandler
from server.handlers.docs import DocsHandler, OpenApiHandler
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
from server.services import Services

log = structlog.get_logger(__name__)

PING_SECONDS = 20  # between pings on a WebSocket; a peer that does not answer is disconnected

ROUTES: list[Rule] = [
    # Tried in this order: the most frequent come first.
    url(r"/api/models/([^/]+)", ModelHandler),
    url(r"/api/stream/([^/]+)", StreamHandler),
    url(r"/api/multi-inference", MultiInferenceHandler),
    url(r"/v1/chat/completions", ChatCompletionsHandler),
    url(r"/", ConsoleHandler),
    url(r"/static/(.+)", ConsoleHandler),
    url(r"/healthz", HealthHandler),
    url(r"/readyz", ReadyHandler),
    url(r"/metrics", MetricsHandler),
    url(r"/api/models", ModelsHandler),
    url(r"/api/(claude4|nova)", ModelHandler),
    url(r"/api/emd/models", EmdModelsHandler),
    url(r"/api/emd/status", EmdStatusHandler),
    url(r"/api/emd/([^/]+)", EmdInferenceHandler),
    url(r"/api/streams/([^/]+)", StreamsHandler),
    url(r"/api/hyperpod/deploy", DeployHandler),
    url(r"/api/hyperpod/destroy", DestroyHandler),
    url(r"/api/hyperpod/presets", HyperPodPresetsHandler),
    url(r"/api/hyperpod/stacks", StacksHandler),
    url(r"/api/hyperpod/jobs", JobsHandler),
    url(r"/api/hyperpod/jobs/([^/]+)", JobHandler),
    url(r"/api/hyperpod/jobs/([^/]+)/cancel", CancelHandler),
    url(r"/api/hyperpod/jobs/([^/]+)/logs", JobLogsHandler),
    url(r"/api/openapi\.json", OpenApiHandler),
    url(r"/api/docs", DocsHandler),
    url(r"/api/docs/(docs\.js|docs\.css)", DocsHandler),
    url(r"/v1/messages", MessagesHandler),
    url(r"/v1/models", V1ModelsHandler),
    url(r"/v1/models/([^/]+)", V1ModelHandler),
    url(r"/ws", SocketHandler),
    url(r"/ws/stream/([^/]+)", StreamSocketHandler),
    url(r"/ws/hyperpod/jobs/([^/]+)/logs", LogSocketHandler),
]


def make_app(services: Services) -> Application:
    make = Application if services.tracing is None else partial(TracedApplication, services.tracing)
    return make(
        ROUTES,
        default_handler_class=NotFoundHandler,
        log_function=_log_request,
        services=services,
        patterns=route_patterns(ROUTES),
        websocket_max_message_size=services.options.max_body,
        websocket_ping_interval=PING_SECONDS,
    )


def route_patterns(rules: Iterable[Rule]) -> tuple[str, ...]:
    """The regular expressions of the route table."""
    return tuple(rule.matcher.regex.pattern for rule in rules if isinstance(rule.matcher, PathMatches))


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
        handler.services.metrics.count_request(handler.route_template, known_method, handler.get_status())
