"""HTTP by hand, for what no client library would send.

async with raw_connection(server) as connection:
    await connection.send(b"POST /api/models/echo HTTP/1.1\\r\\n...")
    answer = await connection.read_response()
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from multidict import CIMultiDict

from tests.running_server import HttpResponse, RunningServer


class ConnectionCut(Exception):
    """The connection ended before the answer was whole."""


class RawConnection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_request(
        self, body: bytes | None, path: str = "/api/models/echo", method: str = "POST", **headers: str
    ) -> HttpResponse:
        """One request, whole, and its answer."""
        await self.send(
            request_head(path, method, length=None if body is None else len(body), **headers) + (body or b"")
        )
        return await self.read_response(has_body=method != "HEAD")

    async def read_response(self, *, has_body: bool = True) -> HttpResponse:
        """The next answer. Raises Cut."""
        try:
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            headers = CIMultiDict((name, value) for name, _, value in (line.partition(": ") for line in lines))
            status = int(first.split()[1])
            content = await self._read_content(headers) if has_body and status not in (100, 204) else b""
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ConnectionCut from error
        return HttpResponse(status, headers, content)

    async def _read_content(self, headers: Mapping[str, str]) -> bytes:
        if "Content-Length" in headers:
            return await self.reader.readexactly(int(headers["Content-Length"]))
        if headers.get("Transfer-Encoding") != "chunked":
            return await self.reader.read()
        content = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return content

    async def wait_closed(self) -> bytes:
        """Waits until the server has closed; returns what came before."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""


@asynccontextmanager
async def raw_connection(server: RunningServer) -> AsyncIterator[RawConnection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**24)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request_head(
    path: str = "/api/models/echo", method: str = "POST", *, length: int | None = None, **headers: str
) -> bytes:
    """A request's head; `Content_Type="..."` is the header Content-Type."""
    fields = {"Host": "localhost"}
    if length is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def json_body(**fields: Any) -> bytes:
    return json.dumps({"text": "hello", **fields}).encode()
