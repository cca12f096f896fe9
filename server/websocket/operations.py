"""Operations of a WebSocket: what its client has started, each under an id of the client's own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial

import structlog

from infraforge_runner.runner import JobRunner
from pipeline.errors import Cancelled, ForgelineError, SlowReader
from pipeline.streams import Stream
from server.inference.delivery import deliver
from server.inference.encoders import Tag
from server.inference.response_types import CompleteEvent
from server.inference.writers import LogSocketWriter, SocketWriter, StreamSocketWriter
from server.jobs.logs import StartPosition, follow_log
from server.observability.logs import outcome_fields

log = structlog.get_logger(__name__)


class Operation(ABC):
    """One operation. The session runs it in `task`; `end_reason` is why it was ended, if it was."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.end_reason: ForgelineError | None = None

    @abstractmethod
    async def run(self, writer: SocketWriter, tag: Tag | None) -> None:
        """Send everything that this operation sends, under `tag`."""

    def cancel(self) -> None:
        """End it because the client asked for that."""
        self.end(Cancelled("The client cancelled this."))

    def end(self, reason: ForgelineError) -> None:
        """End this operation alone, wherever it waits; a stream continues for its other readers."""
        if self.end_reason is None:
            self.end_reason = reason
            self.abort()

    def abort(self) -> None:
        """End it without a last message."""
        if self.task is not None:
            # After the task's first step: a task that is cancelled before it would neither begin nor clean up.
            asyncio.get_running_loop().call_soon(self.task.cancel)

    def log_end(self) -> None:  # noqa: B027 - most operations have no line in the access log
        """Write this operation's line of the access log."""


class StreamOperation(Operation):
    """The events of a stream after the one with seq `after`.

    `owns_stream`: the stream was started by this operation, so that a cancel stops it for all its readers.
    """

    def __init__(self, stream: Stream, heartbeat: float, *, after: int = -1, owns_stream: bool) -> None:
        super().__init__()
        self._stream = stream
        self._heartbeat = heartbeat
        self._after = after
        self._owns_stream = owns_stream

    async def run(self, writer: SocketWriter, tag: Tag | None) -> None:
        with self._stream.attach(self._after) as cursor:
            cursor.on_abort = partial(self.end, SlowReader("This reader was too far behind and was cut off."))
            await deliver(cursor, StreamSocketWriter(writer, tag, self._stream.models[0]), self._heartbeat)

    def cancel(self) -> None:
        if self._owns_stream:
            self._stream.stop(Cancelled("The client cancelled this."))
        else:
            super().cancel()

    def log_end(self) -> None:
        if self._owns_stream:
            log.info("inference", request_id=self._stream.request_id, models=outcome_fields(self._stream))


class LogOperation(Operation):
    """A job's log from `start` on, then the job itself."""

    def __init__(self, jobs: JobRunner, job_id: str, start: StartPosition, heartbeat: float) -> None:
        super().__init__()
        self._jobs = jobs
        self._job_id = job_id
        self._start = start
        self._heartbeat = heartbeat

    async def run(self, writer: SocketWriter, tag: Tag | None) -> None:
        with await follow_log(self._jobs, self._job_id, self._start) as cursor:
            await deliver(cursor, LogSocketWriter(writer, tag, self._job_id), self._heartbeat)
        await writer.send_message({"type": "job", **self._jobs.get(self._job_id).describe()}, tag)
        await writer.send_message(CompleteEvent(), tag)
