"""The session of one WebSocket: messages come in, each starts, follows or ends an operation under its client's id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from tornado.iostream import StreamClosedError

from pipeline.errors import Cancelled, ForgelineError, Internal, InvalidRequest, NotFound, RateLimited
from server.errors import error_fields
from server.inference.encoders import Tag
from server.inference.parsing import (
    ParsedRequest,
    RequestContext,
    decode_body,
    parse_inference,
    parse_multi_inference,
)
from server.inference.response_types import CompleteEvent, ErrorEvent
from server.inference.writers import SocketWriter
from server.jobs.logs import StartPosition
from server.observability.spans import SocketTracer
from server.services import Services
from server.websocket.operations import LogOperation, Operation, StreamOperation
from server.websocket.subscriptions import Subscription, parse_topics

log = structlog.get_logger(__name__)

MAX_OPERATIONS = 256  # of one socket at once
MAX_UNSENT_ERRORS = 1024  # errors that may wait for the client to take them, before no more is read from it


class WebSocketSession:
    """Operations of one socket. `receive` returns at once: each operation runs in a task of its own."""

    def __init__(
        self, services: Services, writer: SocketWriter, owner: str, request_id: str, tracer: SocketTracer | None = None
    ) -> None:
        self._services = services
        self._writer = writer
        self._owner = owner
        self._request_id = request_id
        self._tracer = tracer
        self._heartbeat = services.options.heartbeat
        self._request_count = 0
        self._operations: dict[Tag | None, Operation] = {}
        self._error_tasks: set[asyncio.Task[None]] = set()
        self._ops: dict[str, Callable[[Tag, dict[str, Any]], None]] = {
            "infer": self._infer,
            "resume": self._resume,
            "cancel": self._cancel,
            "tail": self._tail,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def receive(self, message: str | bytes) -> None:
        """Handle a message with an `op`. An error is sent under the message's `id`."""
        tag: Tag | None = None
        try:
            body = self._decode(message)
            tag = _pop_tag(body)
            op = body.pop("op", None)
            if not isinstance(op, str) or op not in self._ops:
                raise InvalidRequest(f"op: expected one of {', '.join(self._ops)}.")
            self._ops[op](tag, body)
        except ForgelineError as error:
            self._send_error_soon(tag, error)

    def receive_request(self, model: str, message: str | bytes) -> None:
        """Handle a message that is a request for `model`, on a socket that carries one stream at a time."""
        try:
            body = self._decode(message)
            parsed = parse_inference(body, self._next_context(), self._services.options.max_frames)
            self._start_stream(None, [model], parsed)
        except ForgelineError as error:
            self._send_error_soon(None, error)

    def follow_log(self, job_id: str, start: StartPosition) -> asyncio.Task[None]:
        """Send a job's log, on a socket that carries nothing else. The task ends when all of it is sent."""
        return self._start(None, LogOperation(self._services.jobs, job_id, start, self._heartbeat))

    def reject_message(self, sentence: str) -> None:
        """Answer a message on a socket that accepts none."""
        self._send_error_soon(None, InvalidRequest(sentence))

    def backpressure(self) -> Awaitable[None] | None:
        """What to await before reading more: set where the client leaves too many errors unread."""
        return self._wait_for_sent_error() if len(self._error_tasks) > MAX_UNSENT_ERRORS else None

    async def _wait_for_sent_error(self) -> None:
        await asyncio.wait(self._error_tasks, return_when=asyncio.FIRST_COMPLETED)

    def close(self) -> None:
        """End all operations: the socket is closed."""
        for operation in self._operations.values():
            operation.abort()
        for task in self._error_tasks:
            task.cancel()

    # --- ops -------------------------------------------------------------------------------------

    def _infer(self, tag: Tag, body: dict[str, Any]) -> None:
        max_frames = self._services.options.max_frames
        if "models" in body:
            parsed = parse_multi_inference(body, self._next_context(), max_frames)
            self._start_stream(tag, parsed.models, parsed)
            return
        model = body.pop("model", None)
        if not isinstance(model, str):
            raise InvalidRequest("model: expected the name of a model, or in `models` a list of them.")
        self._start_stream(tag, [model], parse_inference(body, self._next_context(), max_frames))

    def _start_stream(self, tag: Tag | None, models: list[str] | tuple[str, ...], parsed: ParsedRequest) -> None:
        self._check_can_start(tag)
        open_stream = partial(self._open_stream, tag, models, parsed)
        if self._tracer is None:
            open_stream()
        else:
            self._tracer.trace_inference(parsed.request.request_id, open_stream)

    def _open_stream(
        self, tag: Tag | None, models: list[str] | tuple[str, ...], parsed: ParsedRequest
    ) -> asyncio.Task[None]:
        stream = self._services.streams.open(parsed.request, models, owner=self._owner, resumable=parsed.resumable)
        return self._start(tag, StreamOperation(stream, self._heartbeat, owns_stream=True))

    def _resume(self, tag: Tag, body: dict[str, Any]) -> None:
        _reject_unknown_fields(body, "stream_id", "after")
        stream_id, after = body.get("stream_id"), body.get("after", -1)
        if not isinstance(stream_id, str):
            raise InvalidRequest("stream_id: expected the id that the stream's `start` gave.")
        if isinstance(after, bool) or not isinstance(after, int) or after < -1:
            raise InvalidRequest("after: expected the seq of the last event that you have.")
        stream = self._services.streams.get(stream_id, self._owner)
        stream.validate_resume_position(after)
        self._check_can_start(tag)
        self._start(tag, StreamOperation(stream, self._heartbeat, after=after, owns_stream=False))

    def _cancel(self, tag: Tag, body: dict[str, Any]) -> None:
        _reject_unknown_fields(body, "target")
        target = body.get("target")
        is_tag = isinstance(target, str | int) and not isinstance(target, bool)
        operation = self._operations.get(target) if is_tag else None
        if operation is None:
            raise NotFound("target: nothing runs under this id; it may have ended already.")
        operation.cancel()

    def _tail(self, tag: Tag, body: dict[str, Any]) -> None:
        _reject_unknown_fields(body, "job_id", "from", "lines")
        job_id, start = body.get("job_id"), StartPosition.from_fields(body, "lines")
        if not isinstance(job_id, str):
            raise InvalidRequest("job_id: expected the id of a job.")
        self._services.jobs.get(job_id)
        self._check_can_start(tag)
        self._start(tag, LogOperation(self._services.jobs, job_id, start, self._heartbeat))

    def _subscribe(self, tag: Tag, body: dict[str, Any]) -> None:
        subscription = Subscription.parse(self._services.feed_publisher, body)
        self._check_can_start(tag)
        self._start(tag, subscription)

    def _unsubscribe(self, tag: Tag, body: dict[str, Any]) -> None:
        _reject_unknown_fields(body, "topics")
        topics = parse_topics(body)
        for operation in list(self._operations.values()):
            if isinstance(operation, Subscription):
                operation.topics -= topics
                if not operation.topics:
                    operation.end(Cancelled("The client ended its subscription."))

    # --- operations ------------------------------------------------------------------------------

    def _check_can_start(self, tag: Tag | None) -> None:
        """Raises InvalidRequest for an id in use, RateLimited at the limit of operations."""
        if tag in self._operations:
            raise InvalidRequest("id: something runs under this id already." if tag is not None else "One at a time.")
        if len(self._operations) >= MAX_OPERATIONS:
            raise RateLimited(f"One socket carries {MAX_OPERATIONS} streams at once; wait for one to end.")

    def _start(self, tag: Tag | None, operation: Operation) -> asyncio.Task[None]:
        self._operations[tag] = operation
        operation.task = asyncio.create_task(self._run(tag, operation), name=f"socket {self._request_id} {tag}")
        return operation.task

    async def _run(self, tag: Tag | None, operation: Operation) -> None:
        """Run an operation to its end, and send why it ended where that is not its own end."""
        try:
            await operation.run(self._writer, tag)
        except asyncio.CancelledError:
            if operation.end_reason is None:
                raise
            await self._send_end(tag, operation.end_reason)
        except ForgelineError as error:
            await self._send_end(tag, error)
        except StreamClosedError:
            pass
        except Exception:
            log.exception("websocket_operation_failed", request_id=self._request_id)
            await self._send_end(tag, Internal())
        finally:
            del self._operations[tag]
            operation.log_end()

    async def _send_end(self, tag: Tag | None, reason: ForgelineError) -> None:
        """Send an operation's last message. For the client that cancelled it, it is complete."""
        if isinstance(reason, Cancelled):
            message: CompleteEvent | ErrorEvent = CompleteEvent()
        else:
            message = ErrorEvent(**error_fields(reason))
            self._services.metrics.count_error(reason.code)
        with suppress(StreamClosedError):
            await self._writer.send_message(message, tag)

    def _send_error_soon(self, tag: Tag | None, error: ForgelineError) -> None:
        task = asyncio.create_task(self._send_end(tag, error), name=f"socket {self._request_id} error")
        self._error_tasks.add(task)
        task.add_done_callback(self._error_tasks.discard)

    # --- messages --------------------------------------------------------------------------------

    def _decode(self, message: str | bytes) -> dict[str, Any]:
        socket_format = self._writer.format
        if isinstance(message, bytes) != socket_format.binary:
            expected = "binary frames of MessagePack" if socket_format.binary else "text frames of JSON"
            raise InvalidRequest(f"This socket's subprotocol takes {expected}.")
        body = decode_body(socket_format.content_type, message if isinstance(message, bytes) else message.encode())
        if not isinstance(body, dict):
            raise InvalidRequest("Expected a mapping.")
        return body

    def _next_context(self) -> RequestContext:
        self._request_count += 1
        return RequestContext(f"{self._request_id}.{self._request_count}", self._owner, time.monotonic())


def _pop_tag(body: dict[str, Any]) -> Tag:
    tag = body.pop("id", None)
    if isinstance(tag, bool) or not isinstance(tag, str | int) or len(str(tag)) > 200:
        raise InvalidRequest("id: expected a string or an integer of your own, by which the answers can be told.")
    return tag


def _reject_unknown_fields(body: dict[str, Any], *known: str) -> None:
    for name in body.keys() - set(known):
        raise InvalidRequest(f"{name}: unknown field (known are {', '.join(known)}).")
