"""Just enough HTTP/1.1 to read answers at full speed: a head, then a body by length or in chunks."""

import re
from collections.abc import Mapping

END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


def request(port: int, path: str, body: bytes, accept: str, headers: Mapping[str, str] | None = None) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


class Dechunker:
    """Unwraps a chunked body: a marker can lie across two chunks, where counting in the raw bytes would miss it."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._missing = 0  # of the chunk that is being read, its closing CRLF included

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end, parts = 0, len(data), []
        while at < end and not self.done:
            if self._missing:
                upto = min(end, at + self._missing)
                payload = self._missing - 2
                if payload > 0:
                    parts.append(data[at : min(upto, at + payload)])
                self._missing -= upto - at
                at = upto
                continue
            line = data.find(b"\r\n", at)
            if line < 0:
                self._rest = data[at:]
                break
            size = int(data[at:line], 16)
            self.done = size == 0  # no trailers: nobody here sends any
            self._missing = size + 2
            at = line + 2
        return parts[0] if len(parts) == 1 else b"".join(parts)


class AnswerReader:
    """One answer: `feed` returns the new bytes of its body; `done` says that it is whole."""

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self._head = b""
        self._missing = 0
        self._chunks: Dechunker | None = None

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
            self._chunks = Dechunker()
        return data[end + len(END_OF_HEAD) :]
