"""A minimal, fast HTTP/1.1 client parser: a head, then a body with a length or chunked."""

import re
from collections.abc import Mapping

END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


def build_request(port: int, path: str, body: bytes, accept: str, headers: Mapping[str, str] | None = None) -> bytes:
    extra_headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n{extra_headers}\r\n"
    )
    return head.encode() + body


class ChunkedDecoder:
    """Decodes a chunked body: a marker may span two chunks, so it can't be counted in the raw bytes."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._missing = 0  # bytes of the current chunk, including its CRLF

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        position, end, parts = 0, len(data), []
        while position < end and not self.done:
            if self._missing:
                chunk_end = min(end, position + self._missing)
                payload = self._missing - 2
                if payload > 0:
                    parts.append(data[position : min(chunk_end, position + payload)])
                self._missing -= chunk_end - position
                position = chunk_end
                continue
            line = data.find(b"\r\n", position)
            if line < 0:
                self._rest = data[position:]
                break
            size = int(data[position:line], 16)
            self.done = size == 0  # trailers are not supported
            self._missing = size + 2
            position = line + 2
        return parts[0] if len(parts) == 1 else b"".join(parts)


class ResponseReader:
    """Reads one response: `feed` returns new bytes of the body; `done` is true at its end."""

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self._head = b""
        self._missing = 0
        self._chunks: ChunkedDecoder | None = None

    def feed(self, data: bytes) -> bytes:
        if not self.status:
            data = self._read_head(self._head + data)
            if not self.status:
                return b""
        if self._chunks is not None:
            body = self._chunks.feed(data)
            self.done = self._chunks.done
            return body
        self._missing -= len(data)
        self.done = self._missing <= 0
        return data

    def _read_head(self, data: bytes) -> bytes:
        end = data.find(END_OF_HEAD)
        if end < 0:
            self._head = data
            return b""
        head = data[: end + 2]
        self.status = int(head[9:12])
        length = LENGTH.search(head)
        if length:
            self._missing = int(length[1])
        elif CHUNKED.search(head):
            self._chunks = ChunkedDecoder()
        return data[end + len(END_OF_HEAD) :]
