"""Streams: each owns one request's run, with its log, task and readers, from start to end.

Every response is a stream: one pipeline run per model. All runs write to one log, which any number of readers follow.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from sys import getsizeof
from typing import NamedTuple

import structlog

from pipeline.envelope import RequestSummary
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
from pipeline.events.cursor import Cursor
from pipeline.events.log import EventLog
from pipeline.media.decode import decode_messages
from pipeline.messages import Event, Failure, Inference, InferenceRequest, Result, ToolCallDelta
from pipeline.runtime import PipelineVersion, Runtime

log = structlog.get_logger(__name__)

RECORD_BYTES = 64  # memory of a record, without its text
ENVELOPE_BYTES = 2048  # memory of an envelope, without its texts
MAX_EVICTIONS = 8  # expired streams that one new stream evicts
MAX_LOG_BYTES = 256_000_000  # memory of the logs of all streams


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The first record of every stream."""

    stream_id: str
    request: RequestSummary
    models: tuple[str, ...]


class ModelText(NamedTuple):
    """A chunk of a stream of several models. In a stream of one model, a chunk is a bare `str`."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class StreamComplete:
    """The last record of every stream: a stream without it is incomplete."""


StreamRecord = StreamStart | str | ModelText | ToolCallDelta | Result | Failure | StreamComplete


@dataclass(eq=False)
class Stream:
    """One request's run. Record n of its log is the event with seq n.

    Only `owner` may read it. `retain` says whether it can still be read after its end, until `expires_at`.
    """

    id: str
    owner: str
    request_id: str
    models: tuple[str, ...]
    resumable: bool
    retain: bool
    log: EventLog[StreamRecord] = field(default_factory=EventLog)
    task: asyncio.Task[None] | None = None
    stop_reason: ForgelineError | None = None
    outcomes: dict[str, Result | Failure] = field(default_factory=dict)
    expires_at: float = math.inf  # by the loop's clock
    is_started: bool = False
    _grace_timer: asyncio.TimerHandle | None = None

    def attach(self, after: int = -1) -> Cursor[StreamRecord]:
        """Return a cursor over all events after the one with seq `after`."""
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None
        return self.log.attach(after + 1)

    def validate_resume_position(self, seq: int) -> None:
        """Raise InvalidRequest for the seq of an event that does not exist yet."""
        if seq >= self.log.end:
            raise InvalidRequest(f"after: this stream has told {self.log.end} events so far, from 0 on.")

    def stop(self, reason: ForgelineError) -> None:
        """End the run for all its readers. Every model without an outcome fails with `reason`."""
        if self.stop_reason is None and not self.log.ended:
            self.stop_reason = reason
            if self.is_started and self.task is not None:  # cancelled before its first step, a task runs no `finally`
                self.task.cancel()

    def on_last_reader_detached(self, grace: float) -> None:
        """Stop the run: at once, or after `grace` seconds where the stream is resumable."""
        reason = Cancelled("The last reader of this stream left.")
        if not self.resumable:
            self.stop(reason)
        elif not self.log.ended:
            self._grace_timer = asyncio.get_running_loop().call_later(grace, self.stop, reason)


class Streams:
    """All streams that are running or retained.

    `retention` is for how many seconds an ended stream can still be read, `grace` for how many a resumable stream runs
    on without a reader. `on_outcome` is called with every result and failure. `aborted_readers` counts the cursors
    that were aborted because they lagged.
    """

    def __init__(self, runtime: Runtime, *, max_streams: int, retention: float, grace: float) -> None:
        self._runtime = runtime
        self._max_streams = max_streams
        self._retention = retention
        self._grace = grace
        self._streams: dict[str, Stream] = {}
        self._running: set[Stream] = set()
        self._ended: deque[Stream] = deque()
        self._log_bytes = 0
        self._draining = False
        self.aborted_readers = 0
        self.on_outcome: Callable[[Result | Failure], None] = lambda outcome: None

    @property
    def running_count(self) -> int:
        return len(self._running)

    def open(
        self,
        request: InferenceRequest,
        models: Sequence[str],
        *,
        owner: str = "",
        resumable: bool = False,
        retain: bool = True,
    ) -> Stream:
        """Start to answer `request` with all of `models` concurrently.

        Raises UnknownModel, RateLimited at the limit of streams, Unavailable while the server shuts down, and
        InvalidRequest for a frame that can't be decoded; then no model is called.
        """
        self._check_can_open(models)
        decode_messages(request.messages, request.media_type)
        version = self._runtime.acquire()
        stream = Stream(secrets.token_urlsafe(18), owner, request.request_id, tuple(models), resumable, retain)
        stream.log.on_last_detach = partial(stream.on_last_reader_detached, self._grace)
        self._append(stream, [StreamStart(stream.id, request.summary, stream.models)])
        self._streams[stream.id] = stream
        self._running.add(stream)
        stream.task = asyncio.create_task(self._run(stream, version, request), name=f"stream {request.request_id}")
        return stream

    def get(self, stream_id: str, owner: str) -> Stream:
        """Return the stream with this id. Raises UnknownStream, also for a stream of another owner."""
        stream = self._streams.get(stream_id)
        is_expired = stream is not None and stream.expires_at < asyncio.get_running_loop().time()
        if stream is None or is_expired or not secrets.compare_digest(stream.owner, owner):
            raise UnknownStream("There is no such stream, or not any more.")
        return stream

    async def drain(self, seconds: float) -> None:
        """Reject new streams, give the running ones `seconds` to end, then stop them."""
        self._draining = True
        tasks = [stream.task for stream in self._running if stream.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            for stream in list(self._running):
                stream.stop(Unavailable("The server is shutting down."))
            await asyncio.wait(tasks)

    def _check_can_open(self, models: Sequence[str]) -> None:
        if self._draining:
            raise Unavailable("The server is shutting down.")
        for model in models:
            if model not in self._runtime.models:
                raise UnknownModel(f"No preset defines a model {model!r}; GET /api/models lists them.")
        self._evict_expired()
        if len(self._running) >= self._max_streams:
            raise RateLimited(f"This server answers {self._max_streams} requests at once, and all places are taken.")
        if self._log_bytes > MAX_LOG_BYTES:
            raise RateLimited("The answers that are being written fill this server's memory for them.")

    async def _run(self, stream: Stream, version: PipelineVersion, request: InferenceRequest) -> None:
        stream.is_started = True
        try:
            if stream.stop_reason is not None:
                return
            inferences = [
                Inference(request, model, model, version.models, request.messages, request.parameters)
                for model in stream.models
            ]
            if len(inferences) == 1:
                await self._run_model(stream, version, inferences[0])
            else:
                async with asyncio.TaskGroup() as group:
                    for inference in inferences:
                        group.create_task(self._run_model(stream, version, inference), name=f"model {inference.model}")
        except Exception:
            log.exception("stream_failed", request_id=stream.request_id)
        finally:
            self._finish(stream, version)

    async def _run_model(self, stream: Stream, version: PipelineVersion, inference: Inference) -> None:
        """Append the events of one model's pipeline run to the log. Every error becomes a `Failure` there."""
        model, has_several_models = inference.model, len(stream.models) > 1
        try:
            events = await version.pipeline(inference)
            try:
                async for batch in events:
                    self._append(stream, _with_model(batch, model) if has_several_models else batch)
                    if stream.log.has_lagging_cursor:
                        self.aborted_readers += await stream.log.wait_for_lagging_cursors()
            finally:
                await events.aclose()
        except ForgelineError as error:
            self._append_failure(stream, model, error)
        except Exception:
            log.exception("stage_failed", request_id=stream.request_id, model=model)
            self._append_failure(stream, model, Internal())

    def _append_failure(self, stream: Stream, model: str, error: ForgelineError) -> None:
        if model not in stream.outcomes:  # a cleanup may fail after the result
            self._append(stream, [Failure(model, error.without_traceback())])

    def _append(self, stream: Stream, records: Sequence[StreamRecord]) -> None:
        size, outcomes = 0, []
        for record in records:
            if type(record) is str:
                size += RECORD_BYTES + len(record)
                continue
            size += _size(record)
            if isinstance(record, Result | Failure):
                outcomes.append(record)
        stream.log.extend(records, size)
        self._log_bytes += size
        for outcome in outcomes:
            stream.outcomes[outcome.model] = outcome
            self.on_outcome(outcome)

    def _finish(self, stream: Stream, version: PipelineVersion) -> None:
        """Append a failure for every model without an outcome and the last record; release what the run used.

        Called in the task's last step, so that readers wake once for the last events.
        """
        for model in stream.models:
            if model not in stream.outcomes:
                self._append_failure(stream, model, stream.stop_reason or Internal())
        self._append(stream, [StreamComplete()])
        stream.log.finish()
        # Both would keep the request, with its frames, for as long as the stream is retained.
        stream.log.on_last_detach = stream.task = None
        self._runtime.release(version)
        self._running.discard(stream)
        if stream.retain:
            stream.expires_at = asyncio.get_running_loop().time() + self._retention
            self._ended.append(stream)
        else:
            self._evict(stream)

    def _evict_expired(self) -> None:
        """Evict expired streams, at most `MAX_EVICTIONS`, and more than that where the logs use too much memory.

        After a pause thousands may have expired, and freeing a long log takes time (docs/PERFORMANCE.md).
        """
        now = asyncio.get_running_loop().time()
        for _ in range(MAX_EVICTIONS):
            if not self._ended or self._ended[0].expires_at >= now:
                break
            self._evict(self._ended.popleft())
        while self._ended and self._log_bytes > MAX_LOG_BYTES:
            self._evict(self._ended.popleft())

    def _evict(self, stream: Stream) -> None:
        del self._streams[stream.id]
        self._log_bytes -= stream.log.size


def _with_model(batch: Sequence[Event], model: str) -> list[StreamRecord]:
    return [ModelText(model, event) if isinstance(event, str) else event for event in batch]


def _size(record: StreamRecord) -> int:
    """The approximate memory of a record in bytes."""
    match record:
        case str(text) | ModelText(_, text) | ToolCallDelta(arguments=text):
            return RECORD_BYTES + len(text)
        case Result():
            return ENVELOPE_BYTES + getsizeof(record.envelope["response"]["content"][0]["text"])
        case StreamStart():
            return ENVELOPE_BYTES + getsizeof(record.request["text"])
        case Failure():
            return ENVELOPE_BYTES
        case StreamComplete():
            return RECORD_BYTES
