"""WebSockets: the handshake, its limits, and its end. What is said on one is the conversation's."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Awaitable
from contextlib import ExitStack
from typing import cast

from tornado.httputil import HTTPHeaders
from tornado.web import stream_request_body
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from infraforge_runner.logfile import LogFile
from pipeline.errors import InvalidRequest
from server.conversation import Conversation
from server.errors import MethodNotAllowed, Unauthorized
from server.handlers.door import Door
from server.joblogs import Beginning
from server.sinks import SocketWriter
from server.traced_socket import SocketTrace
from server.wire import SOCKET_FORMATS

KEY_PROTOCOL = "forgeline.key."
NORMAL, GOING_AWAY, TRY_LATER = 1000, 1001, 1013


@stream_request_body  # or Tornado would hold a body in memory, however large
class SocketHandler(Door, WebSocketHandler):
    """/ws: one socket carries many streams."""

    address = "/ws"

    def initialize(self) -> None:
        super().initialize()
        self._conversation: Conversation | None = None
        self._end = ExitStack()

    def prepare(self) -> Awaitable[None] | None:
        self.admit()
        if self.request.method != "GET":
            raise MethodNotAllowed("This address does not take this method.")
        if not _is_handshake(self.request.headers):
            raise InvalidRequest("This address is a WebSocket's: expected the headers of its handshake, and no body.")
        return None

    def data_received(self, chunk: bytes) -> None:
        """Throws it away: who sends a body has been refused."""

    def check_origin(self, origin: str) -> bool:
        return True  # `admit` has checked it, as for every address

    def offered_key(self) -> str | None:
        """The key in a subprotocol: the one place where a browser can put one."""
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

    def open(self, *args: str) -> None:
        services = self.services
        if len(services.sockets) >= services.options.max_sockets or not services.ready:
            self.close(TRY_LATER if services.ready else GOING_AWAY)
            return
        stream = cast(WebSocketProtocol13, self.ws_connection).stream
        stream.set_nodelay(True)
        socket_format = SOCKET_FORMATS[self.selected_subprotocol or next(iter(SOCKET_FORMATS))]
        writer = self._end.enter_context(SocketWriter(stream, socket_format, services.options.heartbeat))
        tracing = services.tracing
        trace = None if tracing is None else SocketTrace(tracing, self.request.headers, self.address)
        self._conversation = Conversation(services, writer, self.owner, self.request_id, trace)
        services.sockets.add(self)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        if self._conversation is None:
            return None
        self.receive(self._conversation, message)
        return self._conversation.pause()

    def receive(self, conversation: Conversation, message: str | bytes) -> None:
        conversation.receive(message)

    def on_close(self) -> None:
        self.services.sockets.discard(self)
        self._end.close()
        if self._conversation is not None:
            self._conversation.close()

    def go_away(self) -> None:
        self.close(GOING_AWAY, "the server is shutting down")


class StreamSocketHandler(SocketHandler):
    """/ws/stream/{model_name}: each message is a request, one after the other."""

    address = "/ws/stream/{model_name}"

    def receive(self, conversation: Conversation, message: str | bytes) -> None:
        conversation.receive_request(self.open_args[0], message)


class LogSocketHandler(SocketHandler):
    """/ws/hyperpod/jobs/{job_id}/logs: begins by itself, and closes when all is sent."""

    address = "/ws/hyperpod/jobs/{job_id}/logs"

    async def prepare(self) -> None:
        """What is wrong with the address is told before the handshake, as HTTP has it."""
        super().prepare()
        jobs, job_id = self.services.jobs, self.path_args[0]
        arguments = {name: self.get_query_argument(name, None) for name in ("from", "lines")}
        with LogFile(jobs.log_path(job_id)) as file:
            self._offset = await Beginning.of_query(arguments, "lines").within(file, file.size())

    def open(self, *args: str) -> None:
        super().open(*args)
        if self._conversation is not None:
            sent = self._conversation.follow_log(args[0], Beginning(self._offset))
            sent.add_done_callback(lambda _: self.close(NORMAL))

    def receive(self, conversation: Conversation, message: str | bytes) -> None:
        conversation.refuse("This address takes no messages: it sends a log.")


def _is_handshake(headers: HTTPHeaders) -> bool:
    """Whether Tornado will take these headers (RFC 6455, 4.2.1): what it refuses, it answers with bare text."""
    wanted = [name.strip().lower() for name in headers.get("Connection", "").split(",")]
    return (
        headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in wanted
        and headers.get("Sec-WebSocket-Version") == "13"
        and bool(headers.get("Sec-WebSocket-Key"))
        and "Transfer-Encoding" not in headers
        and headers.get("Content-Length", "0") == "0"
    )
