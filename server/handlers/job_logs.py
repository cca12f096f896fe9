"""GET /api/hyperpod/jobs/{id}/logs: a job's log so far, or followed to the end of the job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tornado.iostream import StreamClosedError

from infraforge_runner.jobs.log_file import LogFile
from infraforge_runner.jobs.model import Job
from pipeline.errors import InvalidRequest
from server.errors import ClientDisconnected
from server.fast import chunked_writer
from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.delivery import deliver
from server.jobs.logs import (
    EVENT_ENCODERS,
    MAX_MSGPACK_BIN,
    LogEncoder,
    StartPosition,
    follow_log,
    json_body,
    msgpack_body,
)
from server.jobs.response_types import JobId, JobLogsAnswer
from server.openapi.operation import ApiOperation, count_parameter, in_both_formats


class JobLogsHandler(ApiHandler):
    """A log is sent as it is read, never held whole, and no faster than its client takes it."""

    @ApiOperation(
        tag="Deploy jobs",
        summary="A job's log",
        description="As JSON, bare (`text/plain`), or followed live (`text/event-stream`, its `id` the next offset). "
        "In MessagePack the log is bytes.",
        parameters=(
            count_parameter("tail", "so many of the last lines"),
            count_parameter("from", "from this byte on"),
        ),
        answers={**in_both_formats(JobLogsAnswer), encoders.TEXT: str, **dict.fromkeys(EVENT_ENCODERS, str)},
        errors=(404, 406),
    )
    async def get(self, id: JobId) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK, encoders.TEXT, *EVENT_ENCODERS)
        job = self.services.jobs.get(id)
        arguments = {name: self.get_query_argument(name, None) for name in ("from", "tail")}
        if content_type in EVENT_ENCODERS and "Last-Event-ID" in self.request.headers:
            # An EventSource that reconnects still has the query of its first request.
            start = StartPosition.from_query({"from": self.request.headers["Last-Event-ID"]}, "tail")
        else:
            start = StartPosition.from_query(arguments, "tail")
        try:
            if content_type in EVENT_ENCODERS:
                await self._follow(job, start, content_type)
            else:
                await self._send_snapshot(job, start, content_type)
        except StreamClosedError as error:
            raise ClientDisconnected("The client left.") from error

    async def _send_snapshot(self, job: Job, start: StartPosition, content_type: str) -> None:
        with LogFile(self.services.jobs.log_path(job.id)) as file:
            size = file.size()  # the end is fixed here: a log that grows faster than it is sent would never end
            offset = await start.resolve(file, size)
            if content_type != encoders.TEXT and not job.is_finished:
                size = max(offset, file.end_of_last_character(size))
            # SSE is always UTF-8; plain text without a charset is Latin-1 to many clients.
            self.set_header(
                "Content-Type", f"{content_type}; charset=utf-8" if content_type == encoders.TEXT else content_type
            )
            if content_type == encoders.TEXT:
                self.set_header("Content-Length", str(size - offset))
            for piece in _iter_body(job, file, offset, size, content_type):
                self.write(piece)
                await self.flush()
                await asyncio.sleep(0)  # a client that reads everything at once must not keep the others waiting

    async def _follow(self, job: Job, start: StartPosition, content_type: str) -> None:
        jobs = self.services.jobs
        encoder = LogEncoder(content_type, job.id)
        writer = chunked_writer(self, encoder)
        with await follow_log(jobs, job.id, start) as self.cursor:
            self.cursor.on_abort = writer.abort
            self.set_header("Content-Type", content_type)
            self.set_header("X-Accel-Buffering", "no")
            await self.flush()
            await deliver(self.cursor, writer, self.services.options.heartbeat)
            self.write(encoder.encode_end(jobs.get(job.id).describe()))
            await self.flush()
            writer.end()


def _iter_body(job: Job, file: LogFile, offset: int, end: int, content_type: str) -> Iterator[bytes]:
    """The response's body, in pieces of about a block of the log."""
    blocks = file.iter_blocks(offset, end)
    if content_type == encoders.TEXT:
        return blocks
    fields = {"offset": offset, "next_offset": end, "complete": job.is_finished}
    if content_type == encoders.JSON:
        return json_body(job.id, blocks, **fields)
    if end - offset > MAX_MSGPACK_BIN:
        raise InvalidRequest(
            f"from: the log has more than the {MAX_MSGPACK_BIN:,} bytes that one MessagePack value can hold."
        )
    return msgpack_body(job.id, blocks, end - offset, **fields)
