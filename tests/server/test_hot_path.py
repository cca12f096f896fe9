"""A guard: what a request and a token cost, in function calls, which no noise of the machine can hide."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from server import fast
from server.inference import encoders
from tests.async_tests import async_test
from tests.running_server import RunningServer, running_server, scripted_model

TOKENS = 1000
REQUESTS = 20
MODELS = {
    "plain": scripted_model("say:Hello; usage:3,1"),
    "stream": scripted_model(f"chunks:{TOKENS}; usage:3,{TOKENS}"),
}
# Where one of these is passed for a good reason, docs/PERFORMANCE.md has to say what was bought.
PLAIN_CALLS = 1785
STREAM_CALLS = 20_800

pytestmark = [
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each Python counts calls in its own way"),
    pytest.mark.skipif(not fast.ENABLED, reason="the limits are those of the fast path"),
]


class CallCounter:
    """Counts the calls of this thread, Python's and C's, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += event in {"call", "c_call"}

    def __enter__(self) -> CallCounter:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)


def send_requests(port: int, path: str, requests: int) -> None:
    """Asks over one connection, one request after the other, each in one write."""
    body = b'{"text": "Hi"}'
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        for _ in range(requests):
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            read_response(answers)


def read_response(answers: Any) -> None:
    assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = dict(line.lower().strip().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
    if length := int(headers.get(b"content-length", 0)):
        answers.read(length)
    else:
        while size := int(answers.readline(), 16):
            answers.read(size + 2)
        answers.readline()


async def count_calls(server: RunningServer, path: str, requests: int) -> float:
    """Calls for each request: the least of several counts, since in the others something else happened meanwhile."""
    counts = []
    for _ in range(5):
        with CallCounter() as calls:  # the client has a thread of its own, whose calls don't count
            await asyncio.to_thread(send_requests, server.port, path, requests)
        counts.append(calls.count / requests)
    return min(counts)


async def count_plain_calls(folder: Path) -> float:
    async with running_server(folder, models=MODELS) as server:
        return await count_calls(server, "/api/models/plain", REQUESTS)


async def count_stream_calls(folder: Path) -> float:
    async with running_server(folder, models=MODELS) as server:
        return await count_calls(server, "/api/stream/stream", 1)


@async_test
async def test_hot_path_plain_request_call_count(tmp_path: Path) -> None:
    assert await count_plain_calls(tmp_path) <= PLAIN_CALLS


@async_test
async def test_hot_path_stream_call_count(tmp_path: Path) -> None:
    assert await count_stream_calls(tmp_path) <= STREAM_CALLS


@async_test
async def test_hot_path_detects_one_more_call_per_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = encoders.to_json

    def encode_with_extra_call(value: object) -> bytes:
        return encode(value)

    monkeypatch.setattr(encoders, "to_json", encode_with_extra_call)
    assert await count_stream_calls(tmp_path) > STREAM_CALLS


@async_test
async def test_hot_path_detects_repeated_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def summary(request: Any) -> Mapping[str, Any]:
        return {"text": request.messages[-1].text, "frames_count": sum(part is None for part in range(50))}

    monkeypatch.setattr("pipeline.messages.InferenceRequest.summary", property(summary))
    assert await count_plain_calls(tmp_path) > PLAIN_CALLS
