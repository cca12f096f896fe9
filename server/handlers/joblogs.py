"""GET /api/hyperpod/jobs/{job_id}/logs: what a job has written so far, or that and then what it writes, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tornado.iostream import StreamClosedError

from infraforge_runner.job import Job
from infraforge_runner.logfile import LogFile
from pipeline.errors import InvalidRequest
from server import wire
from server.delivery import deliver
from server.errors import ClientLeft
from server.handlers.base import ApiHandler
from server.joblogs import Beginning, follow
from server.logwire import FOLLOWING, LogEncoder, json_body, msgpack_body
from server.sinks import ChunkedSink

MAX_BIN = 2**32 - 1  # bytes that MessagePack can carry in one value


class JobLogsHandler(ApiHandler):
    """A log is sent as it is read, never held whole, and no faster than its client takes it."""

    address = "/api/hyperpod/jobs/{job_id}/logs"

    async def get(self, job_id: str) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK, wire.TEXT, *FOLLOWING)
        job = self.services.jobs.get(job_id)
        arguments = {name: self.get_query_argument(name, None) for name in ("from", "tail")}
        if kind in FOLLOWING and "Last-Event-ID" in self.request.headers:
            # An EventSource that comes back has the address of its first call still.
            beginning = Beginning.of_query({"from": self.request.headers["Last-Event-ID"]}, "tail")
        else:
            beginning = Beginning.of_query(arguments, "tail")
        try:
            if kind in FOLLOWING:
                await self._follow(job, beginning, kind)
            else:
                await self._send_what_is_there(job, beginning, kind)
        except StreamClosedError as error:
            raise ClientLeft("The client left.") from error

    async def _send_what_is_there(self, job: Job, beginning: Beginning, kind: str) -> None:
        with LogFile(self.services.jobs.log_path(job.id)) as file:
            size = file.size()  # the end is fixed here: a log that grows faster than it is read would never end
            offset = await beginning.within(file, size)
            if kind != wire.TEXT and not job.is_finished:
                size = max(offset, file.end_of_characters(size))
            # SSE is always UTF-8; plain text without a charset is Latin-1 to many clients.
            self.set_header("Content-Type", f"{kind}; charset=utf-8" if kind == wire.TEXT else kind)
            if kind == wire.TEXT:
                self.set_header("Content-Length", str(size - offset))
            for piece in _body(job, file, offset, size, kind):
                self.write(piece)
                await self.flush()
                await asyncio.sleep(0)  # a client that takes all at once is not to keep the others waiting

    async def _follow(self, job: Job, beginning: Beginning, kind: str) -> None:
        jobs = self.services.jobs
        encoder = LogEncoder(kind, job.id)
        sink = ChunkedSink(self, encoder)
        with await follow(jobs, job.id, beginning) as self.cursor:
            self.cursor.on_cut = sink.cut
            self.set_header("Content-Type", kind)
            self.set_header("X-Accel-Buffering", "no")
            await self.flush()
            await deliver(self.cursor, sink, self.services.options.heartbeat)
            self.write(encoder.encode_end(jobs.get(job.id).described()))
            await self.flush()
            sink.end()


def _body(job: Job, file: LogFile, offset: int, end: int, kind: str) -> Iterator[bytes]:
    """The answer's body, in pieces of about a block of the log."""
    blocks = file.blocks(offset, end)
    if kind == wire.TEXT:
        return blocks
    fields = {"offset": offset, "next_offset": end, "complete": job.is_finished}
    if kind == wire.JSON:
        return json_body(job.id, blocks, **fields)
    if end - offset > MAX_BIN:
        raise InvalidRequest(f"from: the log has more than the {MAX_BIN:,} bytes that one MessagePack value can hold.")
    return msgpack_body(job.id, blocks, end - offset, **fields)
