"""Load clients: counts are right wherever reads are split, and a wrong response fails."""

from __future__ import annotations

import asyncio
import struct
import time
from pathlib import Path

import pytest

from benchmarks.clients import followers, open_streams, socket_streams
from benchmarks.clients.base import CostMeter, MeasuredProcesses, WrongResponse
from benchmarks.clients.http1 import ChunkedDecoder, ResponseReader
from benchmarks.clients.websocket import frame
from tests.async_tests import async_test

PROCESSES = MeasuredProcesses(target=0, upstream=0, cores=[])
EVENTS = [b'{"id":1,"type":"start","seq":0}', b'{"id":1,"type":"chunk","seq":1}', b'{"id":1,"type":"chunk","seq":2}']
ENDING = [b'{"id":1,"type":"result","seq":3}', b'{"id":1,"type":"complete","seq":4}']


def server_frame(payload: bytes) -> bytes:
    return struct.pack("!BB", 0x81, len(payload)) + payload


def make_socket_streams(*, chunks: int = 2) -> socket_streams.SocketStreams:
    """Streams of a socket, of which one is running and no more are started."""
    plan = socket_streams.Plan(port=0, request={}, chunks=chunks, processes=PROCESSES, streams=1, seconds=0)
    streams = socket_streams.SocketStreams(plan)
    streams.meter, streams._requests = CostMeter(PROCESSES), 1
    return streams


@async_test
async def test_socket_streams_split_frames_count_every_chunk() -> None:
    sent = b"".join(map(server_frame, EVENTS + ENDING))
    for cut in range(len(sent)):
        streams = make_socket_streams()
        streams.on_data(sent[:cut])
        streams.on_data(sent[cut:])
        await streams.finished
        assert (streams.chunks, streams.ended) == (2, 1)


@async_test
async def test_socket_streams_missing_chunk_fails() -> None:
    streams = make_socket_streams(chunks=3)
    streams.on_data(b"".join(map(server_frame, EVENTS + ENDING)))
    with pytest.raises(WrongResponse, match="ended at seq 4"):
        await streams.finished


@async_test
async def test_socket_streams_error_event_fails() -> None:
    streams = make_socket_streams()
    streams.on_data(server_frame(b'{"id":1,"type":"error","code":"rate_limited"}'))
    with pytest.raises(WrongResponse, match="rate_limited"):
        await streams.finished


@async_test
async def test_follower_split_line_counts_once(tmp_path: Path) -> None:
    plan = followers.Plan(port=0, path="/", lines_file="", line="{stamp}", processes=PROCESSES, followers=1, seconds=0)
    sent = server_frame(f'{{"text":"@{time.time():.6f}@ a line\\n"}}'.encode())
    with (tmp_path / "log").open("wb") as file:
        for cut in range(len(sent)):
            log = followers.FollowedLog(plan, file.fileno())
            log.written = 1
            follower = followers.Follower(log)
            follower.on_data(sent[:cut])
            follower.on_data(sent[cut:])
            assert (log.deliveries, len(log.delivery_seconds)) == (1, 1)
            assert log.all_delivered.is_set()


@async_test
async def test_open_streams_rejected_stream_fails() -> None:
    plan = open_streams.Plan(
        port=0, path="/", body="/dev/null", accept="", marker="x", chunks=1, processes=PROCESSES, streams=1, seconds=0
    )
    group = open_streams.StreamGroup(plan)
    open_streams.OpenStream(group).data_received(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nfull")
    with pytest.raises(WrongResponse, match="429"):
        await asyncio.shield(group.all_started)
    assert group.failure.exception() is not None


def test_response_reader_split_chunked_body_is_complete() -> None:
    sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    for cut in range(1, len(sent)):
        reader = ResponseReader()
        body = reader.feed(sent[:cut]) + reader.feed(sent[cut:])
        assert (reader.status, reader.done, body) == (200, True, b"hello world")


def test_chunked_decoder_end_of_body_is_done() -> None:
    chunks = ChunkedDecoder()
    assert chunks.feed(b"2\r\nhi\r\n0\r\n\r\n") == b"hi"
    assert chunks.done


@pytest.mark.parametrize(("size", "head"), [(5, 6), (126, 8), (70_000, 14)])
def test_websocket_frame_length_matches_header(size: int, head: int) -> None:
    assert len(frame(b"x" * size)) == head + size
