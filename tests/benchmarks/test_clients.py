"""What the load clients count is right wherever what comes is cut, and a wrong answer is no figure."""

from __future__ import annotations

import asyncio
import struct
import time
from pathlib import Path

import pytest

from benchmarks.clients import followers, held, tokens
from benchmarks.clients.base import Meter, Watched, WrongAnswer
from benchmarks.clients.http1 import AnswerReader, Dechunker
from benchmarks.clients.websocket import frame
from tests.aio import asynchronous

WATCHED = Watched(measured=0, upstream=0, cores=[])
EVENTS = [b'{"id":1,"type":"start","seq":0}', b'{"id":1,"type":"chunk","seq":1}', b'{"id":1,"type":"chunk","seq":2}']
ENDING = [b'{"id":1,"type":"result","seq":3}', b'{"id":1,"type":"complete","seq":4}']


def framed(payload: bytes) -> bytes:
    return struct.pack("!BB", 0x81, len(payload)) + payload


def a_socket(*, chunks: int = 2) -> tokens.Tokens:
    """With one stream asked for, whose time is over."""
    plan = tokens.Plan(port=0, request={}, chunks=chunks, watched=WATCHED, streams=1, seconds=0)
    asked = tokens.Tokens(plan)
    asked.meter, asked._asked = Meter(WATCHED), 1
    return asked


@asynchronous
async def test_tokens_are_counted_wherever_their_frames_are_cut() -> None:
    sent = b"".join(map(framed, EVENTS + ENDING))
    for at in range(len(sent)):
        asked = a_socket()
        asked.heard(sent[:at])
        asked.heard(sent[at:])
        await asked.over
        assert (asked.chunks, asked.ended) == (2, 1)


@asynchronous
async def test_a_stream_that_lacks_a_chunk_is_no_figure() -> None:
    asked = a_socket(chunks=3)
    asked.heard(b"".join(map(framed, EVENTS + ENDING)))
    with pytest.raises(WrongAnswer, match="ended at seq 4"):
        await asked.over


@asynchronous
async def test_an_error_among_the_events_is_no_figure() -> None:
    asked = a_socket()
    asked.heard(framed(b'{"id":1,"type":"error","code":"rate_limited"}'))
    with pytest.raises(WrongAnswer, match="rate_limited"):
        await asked.over


@asynchronous
async def test_a_follower_counts_a_line_once_wherever_it_is_cut(tmp_path: Path) -> None:
    plan = followers.Plan(port=0, path="/", lines="", line="{stamp}", watched=WATCHED, followers=1, seconds=0)
    sent = framed(f'{{"text":"@{time.time():.6f}@ a line\\n"}}'.encode())
    with (tmp_path / "log").open("wb") as file:
        for at in range(len(sent)):
            log = followers.Log(plan, file.fileno())
            log.written = 1
            follower = followers.Follower(log)
            follower.heard(sent[:at])
            follower.heard(sent[at:])
            assert (log.deliveries, len(log.ways)) == (1, 1)
            assert log.all_out.is_set()


@asynchronous
async def test_a_stream_that_is_refused_is_no_figure() -> None:
    plan = held.Plan(
        port=0, path="/", body="/dev/null", accept="", marker="x", chunks=1, watched=WATCHED, streams=1, seconds=0
    )
    holder = held.Holder(plan)
    held.Stream(holder).data_received(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nfull")
    with pytest.raises(WrongAnswer, match="429"):
        await asyncio.shield(holder.full)
    assert holder.failed.exception() is not None


def test_a_chunked_body_is_read_wherever_it_is_cut() -> None:
    sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    for at in range(1, len(sent)):
        answer = AnswerReader()
        body = answer.feed(sent[:at]) + answer.feed(sent[at:])
        assert (answer.status, answer.done, body) == (200, True, b"hello world")


def test_nothing_is_read_past_a_body() -> None:
    chunks = Dechunker()
    assert chunks.feed(b"2\r\nhi\r\n0\r\n\r\n") == b"hi"
    assert chunks.done


@pytest.mark.parametrize(("size", "head"), [(5, 6), (126, 8), (70_000, 14)])
def test_a_frame_has_the_length_that_it_says(size: int, head: int) -> None:
    assert len(frame(b"x" * size)) == head + size
