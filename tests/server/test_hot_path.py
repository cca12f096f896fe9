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

from server import wire
from tests.aio import asynchronous
from tests.serving import Server, says, serving

TOKENS = 1000
REQUESTS = 20
MODELS = {"plain": says("say:Hello; usage:3,1"), "stream": says(f"chunks:{TOKENS}; usage:3,{TOKENS}")}
# Where one of these is passed for a good reason, docs/PERFORMANCE.md has to say what was bought.
PLAIN_CALLS = 1785
STREAM_CALLS = 20_800

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each Python counts calls in its own way")


class Calls:
    """Counts the calls of this thread, Python's and C's, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += event in {"call", "c_call"}

    def __enter__(self) -> Calls:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)


def ask(port: int, path: str, requests: int) -> None:
    """Asks over one connection, one request after the other, each in one write."""
    body = b'{"text": "Hi"}'
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        for _ in range(requests):
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            read_answer(answers)


def read_answer(answers: Any) -> None:
    assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = dict(line.lower().strip().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
    if length := int(headers.get(b"content-length", 0)):
        answers.read(length)
    else:
        while size := int(answers.readline(), 16):
            answers.read(size + 2)
        answers.readline()


async def cost(server: Server, path: str, requests: int) -> float:
    """Calls for each request: the least of several counts, since in the others something else happened meanwhile."""
    counts = []
    for _ in range(5):
        with Calls() as calls:  # the client has a thread of its own, whose calls don't count
            await asyncio.to_thread(ask, server.port, path, requests)
        counts.append(calls.count / requests)
    return min(counts)


async def cost_of_plain(folder: Path) -> float:
    async with serving(folder, models=MODELS) as server:
        return await cost(server, "/api/models/plain", REQUESTS)


async def cost_of_stream(folder: Path) -> float:
    async with serving(folder, models=MODELS) as server:
        return await cost(server, "/api/stream/stream", 1)


@asynchronous
async def test_a_plain_request_costs_no_more_calls_than_it_did(tmp_path: Path) -> None:
    assert await cost_of_plain(tmp_path) <= PLAIN_CALLS


@asynchronous
async def test_a_stream_of_a_thousand_tokens_costs_no_more_calls_than_it_did(tmp_path: Path) -> None:
    assert await cost_of_stream(tmp_path) <= STREAM_CALLS


@asynchronous
async def test_one_call_more_for_each_token_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = wire.to_json

    def encode_in_a_roundabout_way(value: object) -> bytes:
        return encode(value)

    monkeypatch.setattr(wire, "to_json", encode_in_a_roundabout_way)
    assert await cost_of_stream(tmp_path) > STREAM_CALLS


@asynchronous
async def test_a_summary_that_is_made_anew_each_time_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def summary(request: Any) -> Mapping[str, Any]:
        return {"text": request.messages[-1].text, "frames_count": sum(part is None for part in range(50))}

    monkeypatch.setattr("pipeline.messages.InferenceRequest.summary", property(summary))
    assert await cost_of_plain(tmp_path) > PLAIN_CALLS
