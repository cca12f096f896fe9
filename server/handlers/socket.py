"""WebSockets: handshake, limits and close. Messages are handled by `server/websocket/session.py`."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Awaitable
from contextlib import ExitStack
from typing import Final

from tornado.httputil import HTTPHeaders
from tornado.web import stream_request_body
from tornado.websocket import WebSocketHandler

from infraforge_runner.jobs.log_file import LogFile
from pipeline.errors import InvalidRequest
from server.errors import MethodNotAllowed, Unauthorized
from server.fast import socket_writer
from server.handlers.base import BaseHandler
from server.handlers.inference import EVENTS_DESCRIPTION
from server.inference.encoders import SOCKET_FORMATS
from server.jobs.logs import StartPosition
from server.jobs.response_types import JobId
from server.observability.spans import SocketTracer
from server.openapi.operation import ApiOperation, PresetName, count_parameter
from server.websocket.session import WebSocketSession

KEY_PROTOCOL = "forgeline.key."
SWITCHING_PROTOCOLS = 101
CLOSE_NORMAL, CLOSE_GOING_AWAY, CLOSE_TRY_AGAIN_LATER = 1000, 1001, 1013
_TAG: Final = "WebSocket"
_DESCRIPTION: Final = "Subprotocols: `forgeline.v1.json` and `forgeline.v1.msgpack`. " + EVENTS_DESCRIPTION


@stream_request_body  # or Tornado would hold a body in memory, however large
class SocketHandler(BaseHandler, WebSocketHandler):
    """/ws: one socket carries many operations."""

    def initialize(self, route_path: str) -> None:
        super().initialize(route_path)
        self._session: WebSocketSession | None = None
        self._exit_stack = ExitStack()

    def prepare(self) -> Awaitable[None] | None:
        self.authorize()
        if self.request.method != "GET":
            raise MethodNotAllowed("This address does not take this method.")
        if not _is_handshake(self.request.headers):
            raise InvalidRequest("This address is a WebSocket's: expected the headers of its handshake, and no body.")
        return None

    def data_received(self, chunk: bytes) -> None:
        """Discard the body: `prepare` rejects requests that have one."""

    def check_origin(self, origin: str) -> bool:
        return True  # `authorize` has checked it, as for every address

    def key_outside_headers(self) -> str | None:
        """The key in a subprotocol: a browser can set no header of a handshake."""
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        names = (name.strip() for name in offered)
        encoded = next((name.removeprefix(KEY_PROTOCOL) for name in names if name.startswith(KEY_PROTOCOL)), None)
        if encoded is None:
            return None
        try:
            return urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except (binascii.Error, ValueError) as error:
            raise Unauthorized("The key in the subprotocol is not base64url.") from error

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((name for name in subprotocols if name in SOCKET_FORMATS), None)

    @ApiOperation(
        tag=_TAG,
        summary="Many streams on one socket, each under an id of its client's",
        description=_DESCRIPTION,
        status=SWITCHING_PROTOCOLS,
        errors=(404,),
    )
    def open(self) -> None:
        self.start_session()

    def start_session(self) -> None:
        """Begin to serve the socket, or close it where there is no room."""
        services = self.services
        if len(services.websockets) >= services.options.max_sockets or not services.ready:
            self.close(CLOSE_TRY_AGAIN_LATER if services.ready else CLOSE_GOING_AWAY)
            return
        self.set_nodelay(True)
        socket_format = SOCKET_FORMATS[self.selected_subprotocol or next(iter(SOCKET_FORMATS))]
        writer = self._exit_stack.enter_context(socket_writer(self, socket_format, services.options.heartbeat))
        tracing = services.tracing
        trace = None if tracing is None else SocketTracer(tracing, self.request.headers, self.route_path)
        self._session = WebSocketSession(services, writer, self.owner, self.request_id, trace)
        services.websockets.add(self)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        if self._session is None:
            return None
        self.receive(self._session, message)
        return self._session.backpressure()

    def receive(self, session: WebSocketSession, message: str | bytes) -> None:
        session.receive(message)

    def on_close(self) -> None:
        self.services.websockets.discard(self)
        self._exit_stack.close()
        if self._session is not None:
            self._session.close()
            self._session = None  # it refers to this handler: without that, only the collector would free both

    def close_for_shutdown(self) -> None:
        self.close(CLOSE_GOING_AWAY, "the server is shutting down")


class StreamSocketHandler(SocketHandler):
    """/ws/stream/{model_name}: each message is a request, one at a time."""

    @ApiOperation(
        tag=_TAG,
        summary="One model: each message is a request",
        description=_DESCRIPTION,
        status=SWITCHING_PROTOCOLS,
        errors=(404,),
    )
    def open(self, model_name: PresetName) -> None:  # type: ignore[override]  # Tornado passes the path's parameters
        self._model_name = model_name
        self.start_session()

    def receive(self, session: WebSocketSession, message: str | bytes) -> None:
        session.receive_request(self._model_name, message)


class LogSocketHandler(SocketHandler):
    """/ws/hyperpod/jobs/{job_id}/logs: starts by itself, and closes when all is sent."""

    async def prepare(self) -> None:
        """Check job and position before the handshake, so that errors are HTTP answers."""
        super().prepare()
        jobs, job_id = self.services.jobs, self.path_kwargs["job_id"]
        arguments = {name: self.get_query_argument(name, None) for name in ("from", "lines")}
        with LogFile(jobs.log_path(job_id)) as file:
            self._offset = await StartPosition.from_query(arguments, "lines").resolve(file, file.size())

    @ApiOperation(
        tag=_TAG,
        summary="One job's log, live",
        parameters=(
            count_parameter("from", "from this byte on"),
            count_parameter("lines", "so many of the last lines"),
        ),
        status=SWITCHING_PROTOCOLS,
        errors=(404,),
    )
    def open(self, job_id: JobId) -> None:  # type: ignore[override]  # Tornado passes the path's parameters
        self.start_session()
        if self._session is not None:
            task = self._session.follow_log(job_id, StartPosition(self._offset))
            task.add_done_callback(lambda _: self.close(CLOSE_NORMAL))

    def receive(self, session: WebSocketSession, message: str | bytes) -> None:
        session.reject_message("This address takes no messages: it sends a log.")


def _is_handshake(headers: HTTPHeaders) -> bool:
    """Whether Tornado will accept these headers (RFC 6455, 4.2.1): it answers others with bare text."""
    connection_options = [name.strip().lower() for name in headers.get("Connection", "").split(",")]
    return (
        headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in connection_options
        and headers.get("Sec-WebSocket-Version") == "13"
        and bool(headers.get("Sec-WebSocket-Key"))
        and "Transfer-Encoding" not in headers
        and headers.get("Content-Length", "0") == "0"
    )
