"""What one WebSocket carries: ops come in, each starts, follows or ends one thing under the client's own id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from tornado.iostream import StreamClosedError

from pipeline.errors import Cancelled, ForgelineError, Internal, InvalidRequest, NotFound, RateLimited, SlowReader
from pipeline.streams import Stream
from server.accesslog import describe_stream
from server.delivery import deliver
from server.errors import describe
from server.joblogs import Beginning, follow
from server.requests import Arrival, Asked, decode_body, parse_inference, parse_multi_inference
from server.services import Services
from server.sinks import LogSocketSink, SocketSink, SocketWriter
from server.subscription import Subscription
from server.traced_socket import SocketTrace
from server.wire import Tag

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 256  # things that one socket may carry at once
MAX_UNTOLD = 1024  # errors that may wait for the client to take them, before no more is read from it


@dataclass(eq=False)
class _Talk:
    """One thing that a socket carries. `stream` is the one that this talk began, and which a cancel stops."""

    task: asyncio.Task[None] | None = None
    stream: Stream | None = None
    subscription: Subscription | None = None
    ended_by: ForgelineError | None = None

    def end(self, reason: ForgelineError) -> None:
        """Ends this talk alone, wherever it waits; a stream goes on for its other readers."""
        if self.ended_by is None:
            self.ended_by = reason
            self.drop()

    def drop(self) -> None:
        """Stops this talk without a word."""
        if self.task is not None:
            # After its first step: a task that is cancelled before it would neither begin nor clean up.
            asyncio.get_running_loop().call_soon(self.task.cancel)


Work = Callable[[Tag | None, _Talk], Coroutine[Any, Any, None]]


class Conversation:
    """The ops of one socket. `receive` answers at once; what takes time runs in a task of its own."""

    def __init__(
        self, services: Services, writer: SocketWriter, owner: str, request_id: str, trace: SocketTrace | None = None
    ) -> None:
        self._services = services
        self._trace = trace
        self._writer = writer
        self._owner = owner
        self._request_id = request_id
        self._count = 0
        self._talks: dict[Tag | None, _Talk] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._ops: dict[str, Callable[[Tag, dict[str, Any]], None]] = {
            "infer": self._infer,
            "resume": self._resume,
            "cancel": self._cancel,
            "tail": self._tail,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def receive(self, message: str | bytes) -> None:
        """Takes a message with an `op`. What is wrong with it is told under its `id`."""
        tag: Tag | None = None
        try:
            body = self._decode(message)
            tag = _tag_of(body)
            op = body.pop("op", None)
            if not isinstance(op, str) or op not in self._ops:
                raise InvalidRequest(f"op: expected one of {', '.join(self._ops)}.")
            self._ops[op](tag, body)
        except ForgelineError as error:
            self._tell(tag, error)

    def receive_request(self, model: str, message: str | bytes) -> None:
        """Takes a message that is a request for `model`, on a socket that carries one stream at a time."""
        try:
            body = self._decode(message)
            self._begin_stream(None, [model], parse_inference(body, self._arrival(), self._services.options.max_frames))
        except ForgelineError as error:
            self._tell(None, error)

    def follow_log(self, job_id: str, beginning: Beginning) -> asyncio.Task[None]:
        """Begins to send a job's log, on a socket that carries nothing else; done when all is sent that it will be."""
        return self._start(None, _Talk(), partial(self._follow_log, job_id=job_id, beginning=beginning))

    def refuse(self, sentence: str) -> None:
        """Answers a message on a socket that takes none."""
        self._tell(None, InvalidRequest(sentence))

    def pause(self) -> Awaitable[None] | None:
        """To be awaited before more is read from a client that leaves too many errors untaken."""
        return self._room() if len(self._telling) > MAX_UNTOLD else None

    async def _room(self) -> None:
        await asyncio.wait(self._telling, return_when=asyncio.FIRST_COMPLETED)

    def close(self) -> None:
        """The socket is gone: nothing that it carried has this reader any more."""
        for talk in self._talks.values():
            talk.drop()
        for task in self._telling:
            task.cancel()

    # --- ops -------------------------------------------------------------------------------------

    def _infer(self, tag: Tag, body: dict[str, Any]) -> None:
        most = self._services.options.max_frames
        if "models" in body:
            asked = parse_multi_inference(body, self._arrival(), most)
            self._begin_stream(tag, asked.models, asked)
            return
        model = body.pop("model", None)
        if not isinstance(model, str):
            raise InvalidRequest("model: expected the name of a model, or in `models` a list of them.")
        self._begin_stream(tag, [model], parse_inference(body, self._arrival(), most))

    def _begin_stream(self, tag: Tag | None, models: list[str] | tuple[str, ...], asked: Asked) -> None:
        self._make_room(tag)
        if self._trace is None:
            self._open_stream(tag, models, asked)
        else:
            self._trace.infer(asked.request.request_id, partial(self._open_stream, tag, models, asked))

    def _open_stream(self, tag: Tag | None, models: list[str] | tuple[str, ...], asked: Asked) -> asyncio.Task[None]:
        stream = self._services.streams.open(asked.request, models, owner=self._owner, resumable=asked.resumable)
        return self._start(tag, _Talk(stream=stream), partial(self._follow, stream=stream, after=-1))

    def _resume(self, tag: Tag, body: dict[str, Any]) -> None:
        _only(body, "stream_id", "after")
        stream_id, after = body.get("stream_id"), body.get("after", -1)
        if not isinstance(stream_id, str):
            raise InvalidRequest("stream_id: expected the id that the stream's `start` gave.")
        if isinstance(after, bool) or not isinstance(after, int) or after < -1:
            raise InvalidRequest("after: expected the seq of the last event that you have.")
        stream = self._services.streams.get(stream_id, self._owner)
        stream.check_told(after)
        self._make_room(tag)
        self._start(tag, _Talk(), partial(self._follow, stream=stream, after=after))

    def _cancel(self, tag: Tag, body: dict[str, Any]) -> None:
        _only(body, "target")
        target = body.get("target")
        talk = self._talks.get(target) if isinstance(target, str | int) and not isinstance(target, bool) else None
        if talk is None:
            raise NotFound("target: nothing runs under this id; it may have ended already.")
        if talk.stream is not None:
            talk.stream.stop(Cancelled("The client cancelled this."))
        else:
            talk.end(Cancelled("The client cancelled this."))

    def _tail(self, tag: Tag, body: dict[str, Any]) -> None:
        _only(body, "job_id", "from", "lines")
        job_id, beginning = body.get("job_id"), Beginning.of(body, "lines")
        if not isinstance(job_id, str):
            raise InvalidRequest("job_id: expected the id of a job.")
        self._services.jobs.get(job_id)
        self._make_room(tag)
        self._start(tag, _Talk(), partial(self._follow_log, job_id=job_id, beginning=beginning))

    def _subscribe(self, tag: Tag, body: dict[str, Any]) -> None:
        subscription = Subscription.parse(self._services, body)
        self._make_room(tag)
        self._start(tag, _Talk(subscription=subscription), partial(subscription.follow, self._writer))

    def _unsubscribe(self, tag: Tag, body: dict[str, Any]) -> None:
        _only(body, "topics")
        topics = Subscription.parse_topics(body)
        for talk in list(self._talks.values()):
            if talk.subscription is not None:
                talk.subscription.topics -= topics
                if not talk.subscription.topics:
                    talk.end(Cancelled("The client ended its subscription."))

    # --- what runs -------------------------------------------------------------------------------

    def _make_room(self, tag: Tag | None) -> None:
        """Raises InvalidRequest for an id in use, RateLimited where the socket carries all it may."""
        if tag in self._talks:
            raise InvalidRequest("id: something runs under this id already." if tag is not None else "One at a time.")
        if len(self._talks) >= MAX_AT_ONCE:
            raise RateLimited(f"One socket carries {MAX_AT_ONCE} streams at once; wait for one to end.")

    def _start(self, tag: Tag | None, talk: _Talk, work: Work) -> asyncio.Task[None]:
        self._talks[tag] = talk
        talk.task = asyncio.create_task(self._run(tag, talk, work(tag, talk)), name=f"socket {self._request_id} {tag}")
        return talk.task

    async def _follow(self, tag: Tag | None, talk: _Talk, stream: Stream, after: int) -> None:
        with stream.attach(after) as cursor:
            cursor.on_cut = partial(talk.end, SlowReader("This reader was too far behind and was cut off."))
            await deliver(cursor, SocketSink(self._writer, tag, stream.models[0]), self._services.options.heartbeat)

    async def _follow_log(self, tag: Tag | None, talk: _Talk, job_id: str, beginning: Beginning) -> None:
        jobs = self._services.jobs
        with await follow(jobs, job_id, beginning) as cursor:
            await deliver(cursor, LogSocketSink(self._writer, tag, job_id), self._services.options.heartbeat)
        await self._writer.send_message({"type": "job", **jobs.get(job_id).described()}, tag)
        await self._writer.send_message({"type": "complete"}, tag)

    async def _run(self, tag: Tag | None, talk: _Talk, work: Coroutine[Any, Any, None]) -> None:
        """One talk to its end, however that comes."""
        try:
            await work
        except asyncio.CancelledError:
            if talk.ended_by is None:
                raise
            await self._send_end(tag, talk.ended_by)
        except ForgelineError as error:
            await self._send_end(tag, error)
        except StreamClosedError:
            pass
        except Exception:
            log.exception("socket failed", request_id=self._request_id)
            await self._send_end(tag, Internal())
        finally:
            del self._talks[tag]
            if talk.stream is not None:
                log.info("inference", request_id=talk.stream.request_id, models=describe_stream(talk.stream))

    async def _send_end(self, tag: Tag | None, reason: ForgelineError) -> None:
        """The last message of a talk that did not come to its own end. One that its client ended is complete."""
        if isinstance(reason, Cancelled):
            message: dict[str, Any] = {"type": "complete"}
        else:
            message = {"type": "error", **describe(reason)}
            self._services.metrics.error(reason.code)
        with suppress(StreamClosedError):
            await self._writer.send_message(message, tag)

    def _tell(self, tag: Tag | None, error: ForgelineError) -> None:
        """Tells an error beside everything else."""
        task = asyncio.create_task(self._send_end(tag, error), name=f"socket {self._request_id} error")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

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

    def _arrival(self) -> Arrival:
        self._count += 1
        return Arrival(f"{self._request_id}.{self._count}", self._owner, time.monotonic())


def _tag_of(body: dict[str, Any]) -> Tag:
    tag = body.pop("id", None)
    if isinstance(tag, bool) or not isinstance(tag, str | int) or len(str(tag)) > 200:
        raise InvalidRequest("id: expected a string or an integer of your own, by which the answers can be told.")
    return tag


def _only(body: dict[str, Any], *fields: str) -> None:
    for name in body.keys() - set(fields):
        raise InvalidRequest(f"{name}: unknown field (known are {', '.join(fields)}).")
