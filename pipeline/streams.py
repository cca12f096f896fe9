"""Streams: who owns a run: its log, its task, its readers, its grace, its end.

Every answer is a stream: one pipeline run per model, all writing to one log, that any number of readers follow.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from sys import getsizeof
from typing import Any, NamedTuple

import structlog

from pipeline.errors import (
    Cancelled,
    ForgelineError,
    Internal,
    InvalidRequest,
    RateLimited,
    Unavailable,
    UnknownModel,
    UnknownStream,
)
from pipeline.eventlog import Cursor, EventLog
from pipeline.media import decode_all
from pipeline.messages import Failure, Inference, InferenceRequest, Result, ToolCallPiece
from pipeline.runtime import Edition, Runtime

log = structlog.get_logger(__name__)

RECORD_BYTES = 64  # what a record weighs in memory beside its text
ENVELOPE_BYTES = 2048  # what an envelope weighs beside its texts
FORGOTTEN_AT_ONCE = 8  # old streams, when a new one begins
MAX_HELD = 256_000_000  # bytes that the logs of all streams may hold together


@dataclass(frozen=True, slots=True)
class Start:
    """The first record of every stream."""

    stream_id: str
    request: Mapping[str, Any]
    models: tuple[str, ...]


class Delta(NamedTuple):
    """A chunk of a stream that has several models. Where there is one, a chunk is its bare text."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The last record of every stream: one without it was cut."""


Record = Start | str | Delta | ToolCallPiece | Result | Failure | Complete


@dataclass(eq=False)
class Stream:
    """One run. Its record n is the event with seq n. `owner` alone may read it; `kept`: also after its end."""

    id: str
    owner: str
    request_id: str
    models: tuple[str, ...]
    resumable: bool
    kept: bool
    log: EventLog[Record] = field(default_factory=EventLog)
    task: asyncio.Task[None] | None = None
    stopped: ForgelineError | None = None
    outcomes: dict[str, Result | Failure] = field(default_factory=dict)
    kept_until: float = math.inf  # by the loop's clock
    _grace: asyncio.TimerHandle | None = None

    def attach(self, after: int = -1) -> Cursor[Record]:
        """A reader of all events after the one with seq `after`."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        return self.log.attach(after + 1)

    def check_told(self, seq: int) -> None:
        """Raises InvalidRequest for the seq of an event that is still to come."""
        if seq >= len(self.log.records):
            raise InvalidRequest(f"after: this stream has told {len(self.log.records)} events so far, from 0 on.")

    def stop(self, reason: ForgelineError) -> None:
        """Ends the run for all its readers; it tells them `reason` for every model that has no outcome yet."""
        if self.task is not None and not self.task.done() and self.stopped is None:
            self.stopped = reason
            self.task.cancel()

    def left(self, grace: float) -> None:
        """The last reader has left: a resumable stream waits for another, `grace` seconds."""
        reason = Cancelled("The last reader of this stream left.")
        if not self.resumable:
            self.stop(reason)
        elif not self.log.ended:
            self._grace = asyncio.get_running_loop().call_later(grace, self.stop, reason)


class Streams:
    """All streams: those that run, and those that ended a while ago.

    `keep` and `grace` are in seconds: how long an ended stream can still be read, and how long a resumable one
    runs on without a reader. `on_outcome` hears of every result and failure; `readers_cut` counts those that lagged.
    """

    def __init__(self, runtime: Runtime, *, max_streams: int, keep: float, grace: float) -> None:
        self._runtime = runtime
        self._max_streams = max_streams
        self._keep = keep
        self._grace = grace
        self._streams: dict[str, Stream] = {}
        self._running: set[Stream] = set()
        self._ended: deque[Stream] = deque()
        self._held = 0
        self._draining = False
        self.readers_cut = 0
        self.on_outcome: Callable[[Result | Failure], None] = lambda outcome: None

    @property
    def running(self) -> int:
        return len(self._running)

    def open(
        self,
        request: InferenceRequest,
        models: Sequence[str],
        *,
        owner: str = "",
        resumable: bool = False,
        kept: bool = True,
    ) -> Stream:
        """Starts to answer `request` by all of `models`, side by side.

        Raises UnknownModel; RateLimited at the limit of streams; Unavailable while the server shuts down; and
        InvalidRequest for a frame that can't be read: that is wrong whoever answers, and no model is asked.
        """
        self._check(models)
        decode_all(request.messages, request.media_type)
        edition = self._runtime.acquire()
        stream = Stream(secrets.token_urlsafe(18), owner, request.request_id, tuple(models), resumable, kept)
        stream.log.on_idle = partial(stream.left, self._grace)
        self._append(stream, [Start(stream.id, request.summary, stream.models)])
        self._streams[stream.id] = stream
        self._running.add(stream)
        stream.task = asyncio.create_task(self._run(stream, edition, request), name=f"stream {request.request_id}")
        stream.task.add_done_callback(partial(self._see_it_ended, stream, edition))
        return stream

    def get(self, stream_id: str, owner: str) -> Stream:
        """The stream with this id. Raises UnknownStream, also where it is somebody else's."""
        stream = self._streams.get(stream_id)
        is_over = stream is None or stream.kept_until < asyncio.get_running_loop().time()
        if stream is None or is_over or not secrets.compare_digest(stream.owner, owner):
            raise UnknownStream("There is no such stream, or not any more.")
        return stream

    async def drain(self, seconds: float) -> None:
        """Lets nothing new begin, gives what runs `seconds` to end, then ends it."""
        self._draining = True
        tasks = [stream.task for stream in self._running if stream.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            for stream in list(self._running):
                stream.stop(Unavailable("The server is shutting down."))
            await asyncio.wait(tasks)

    def _check(self, models: Sequence[str]) -> None:
        if self._draining:
            raise Unavailable("The server is shutting down.")
        for model in models:
            if model not in self._runtime.models:
                raise UnknownModel(f"No preset defines a model {model!r}; GET /api/models lists them.")
        self._forget_old()
        if len(self._running) >= self._max_streams:
            raise RateLimited(f"This server answers {self._max_streams} requests at once, and all places are taken.")
        if self._held > MAX_HELD:
            raise RateLimited("The answers that are being written fill this server's memory for them.")

    async def _run(self, stream: Stream, edition: Edition, request: InferenceRequest) -> None:
        asked = [
            Inference(request, model, model, edition.models, request.messages, request.parameters)
            for model in stream.models
        ]
        if len(asked) == 1:
            await self._answer(stream, edition, asked[0])
        else:
            async with asyncio.TaskGroup() as group:
                for inference in asked:
                    group.create_task(self._answer(stream, edition, inference), name=f"model {inference.model}")
        self._end(stream, edition)  # here already, so that readers wake once for the last events

    async def _answer(self, stream: Stream, edition: Edition, inference: Inference) -> None:
        """One model's way through the pipeline. Whatever goes wrong is told as its failure."""
        model = inference.model
        try:
            await self._pass_on(stream, edition, inference)
        except ForgelineError as error:
            self._fail(stream, model, error)
        except Exception:
            log.exception("stage failed", request_id=stream.request_id, model=model)
            self._fail(stream, model, Internal())

    async def _pass_on(self, stream: Stream, edition: Edition, inference: Inference) -> None:
        model, several = inference.model, len(stream.models) > 1
        events = await edition.pipeline(inference)
        try:
            async for batch in events:
                told = [Delta(model, one) if isinstance(one, str) else one for one in batch] if several else batch
                self._append(stream, told)
                if stream.log.crowded:
                    self.readers_cut += await stream.log.pace()
        finally:
            await events.aclose()

    def _fail(self, stream: Stream, model: str, error: ForgelineError) -> None:
        """Tells a failure, unless that model has its outcome: a close may fail after the result."""
        if model not in stream.outcomes:
            self._append(stream, [Failure(model, error.again())])

    def _append(self, stream: Stream, records: Sequence[Record]) -> None:
        size, outcomes = 0, []
        for record in records:
            if type(record) is str:
                size += RECORD_BYTES + len(record)
                continue
            size += _size(record)
            if isinstance(record, Result | Failure):
                outcomes.append(record)
        stream.log.extend(records, size)
        self._held += size
        for outcome in outcomes:
            stream.outcomes[outcome.model] = outcome
            self.on_outcome(outcome)

    def _see_it_ended(self, stream: Stream, edition: Edition, task: asyncio.Task[None]) -> None:
        """Ends what was cancelled, be it before its first step."""
        if not stream.log.ended:
            self._end(stream, edition)
        if not task.cancelled() and task.exception() is not None:
            log.error("stream failed", request_id=stream.request_id, exc_info=task.exception())
        stream.task = None  # by its error it would hold the request, with its frames, for as long as the stream is kept

    def _end(self, stream: Stream, edition: Edition) -> None:
        """Tells a failure for every model that has no outcome, and the last record; gives back what the run held."""
        for model in stream.models:
            if model not in stream.outcomes:
                self._append(stream, [Failure(model, (stream.stopped or Internal()).again())])
        self._append(stream, [Complete()])
        stream.log.end()
        stream.log.on_idle = None  # it holds the stream, which holds the log
        self._runtime.release(edition)
        self._running.discard(stream)
        if stream.kept:
            stream.kept_until = asyncio.get_running_loop().time() + self._keep
            self._ended.append(stream)
        else:
            self._forget(stream)

    def _forget_old(self) -> None:
        """Forgets what ended long ago, some at a time, and more than that where the logs hold too much.

        To give back a stream of 2,000 chunks takes 0.1 ms, and after a pause there may be thousands of them.
        """
        now = asyncio.get_running_loop().time()
        for _ in range(FORGOTTEN_AT_ONCE):
            if not self._ended or self._ended[0].kept_until >= now:
                break
            self._forget(self._ended.popleft())
        while self._ended and self._held > MAX_HELD:
            self._forget(self._ended.popleft())

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.id]
        self._held -= stream.log.size


def _size(record: Record) -> int:
    """What a record weighs in memory, about."""
    match record:
        case str(text) | Delta(_, text) | ToolCallPiece(arguments=text):
            return RECORD_BYTES + len(text)
        case Result():
            return ENVELOPE_BYTES + getsizeof(record.envelope["response"]["content"][0]["text"])
        case Start():
            return ENVELOPE_BYTES + getsizeof(record.request["text"])
        case Failure():
            return ENVELOPE_BYTES
        case Complete():
            return RECORD_BYTES
