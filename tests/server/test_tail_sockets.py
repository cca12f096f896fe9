"""Job logs on WebSockets: the op `tail`, and the address that carries one log and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from tornado.websocket import WebSocketProtocol13

from server import logwire
from server.handlers.socket import SocketHandler
from server.sinks import SocketWriter
from tests.aio import asynchronous, comes_true
from tests.server.checks import check_error
from tests.server.jobs import WrittenJob, written_job
from tests.serving import Server, says, serving
from tests.sockets import CLOSE, JSON, MSGPACK, TEXT, Message, Talk, frame, handshake, raw_line, raw_socket, talking

LINES = b"one\ntwo\nthree\n"
HOSTILE = b"\xff\x1b[31mred\x1b[0m <script>alert('&')</script> \"\\ \r 50 %\r \0 \xf0\x9f\x98\x80\n"


def check_log(messages: list[Message], job: WrittenJob, content: bytes, *, offset: int = 0) -> None:
    """That these are the whole of a job's log from `offset`, and then its end."""
    *parts, ended, complete = messages
    for part in parts:
        assert part.keys() == {"type", "job_id", "offset", "next_offset", "text"}
        assert (part["type"], part["job_id"], part["offset"]) == ("log", job.id, offset)
        text = part["text"].encode() if isinstance(part["text"], str) else part["text"]
        assert text == content[offset : part["next_offset"]]
        offset = part["next_offset"]
    assert offset == len(content)
    assert ended == {"type": "job", **job.kept.job.described()}
    assert complete == {"type": "complete"}


@asynchronous
async def test_a_log_is_sent_from_its_start_and_then_as_it_is_written(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job, talking(server) as talk:
        await job.writer.write(b"one\n")
        await talk.say(op="tail", id="a", job_id=job.id)
        told = [await talk.next("a")]
        await job.writer.write(b"two\n")
        told.append(await talk.next("a"))
        await job.writer.write(b"three")
        job.finish()
        told += await talk.whole("a")
        check_log(told, job, b"one\ntwo\nthree")
        assert [part["text"] for part in told[:3]] == ["one\n", "two\n", "three"]


@pytest.mark.parametrize(("fields", "offset"), [({"from": 4}, 4), ({"lines": 1}, 8), ({"lines": 0}, 14), ({}, 0)])
@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@asynchronous
async def test_it_begins_where_it_was_asked_to(
    tmp_path: Path, fields: dict[str, int], offset: int, protocol: str
) -> None:
    async with serving(tmp_path) as server, written_job(server) as job:
        await job.writer.write(LINES)
        job.finish()
        async with talking(server, protocols=(protocol,)) as talk:
            await talk.say(op="tail", id=7, job_id=job.id, **fields)
            check_log(await talk.whole(7), job, LINES, offset=offset)
        query = "?" + "&".join(f"{name}={value}" for name, value in fields.items())
        async with talking(server, job.socket + query, protocols=(protocol,)) as talk:
            check_log(await talk.whole(), job, LINES, offset=offset)
            assert await talk.closed() == 1000


@asynchronous
async def test_bytes_that_are_no_utf8_are_replaced_in_json_and_carried_in_messagepack(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job:
        await job.writer.write(HOSTILE)
        job.finish()
        for path, op in ((job.socket, {}), ("/ws", {"op": "tail", "id": "ü", "job_id": job.id})):
            for protocol, text in ((JSON, HOSTILE.decode("utf-8", "replace")), (MSGPACK, HOSTILE)):
                async with talking(server, path, (protocol,)) as talk:
                    if op:
                        await talk.say(**op)
                    assert (await talk.whole(op.get("id")))[0]["text"] == text


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"from": -1}, "from"),
        ({"from": "1"}, "from"),
        ({"from": 1.0}, "from"),
        ({"from": True}, "from"),
        ({"from": 15}, "from"),
        ({"from": 2**63}, "from"),
        ({"lines": -1}, "lines"),
        ({"lines": [1]}, "lines"),
        ({"from": 1, "lines": 1}, "from, lines"),
        ({"tail": 1}, "tail"),
        ({"job_id": 5}, "job_id"),
        ({"job_id": None}, "job_id"),
    ],
)
@asynchronous
async def test_a_wrong_field_is_refused_by_name_and_the_socket_goes_on(
    tmp_path: Path, fields: dict[str, Any], name: str
) -> None:
    async with serving(tmp_path) as server, written_job(server) as job, talking(server) as talk:
        await job.writer.write(LINES)
        job.finish()
        await talk.say(**{"op": "tail", "id": "a", "job_id": job.id, **fields})
        told = await talk.next("a")
        assert (told["type"], told["code"]) == ("error", "invalid_request")
        assert told["error"].startswith(f"{name}: ")
        await talk.say(op="tail", id="a", job_id=job.id)
        check_log(await talk.whole("a"), job, LINES)


@pytest.mark.parametrize("job_id", ["", "x", "../../etc/passwd", "\0", "x" * 5000])
@asynchronous
async def test_an_unknown_job_is_told_under_the_clients_id(tmp_path: Path, job_id: str) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        await talk.say(op="tail", id="a", job_id=job_id)
        told = await talk.next("a")
        assert (told["type"], told["code"]) == ("error", "unknown_job")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/ws/hyperpod/jobs/x/logs", 404, "unknown_job"),
        ("/ws/hyperpod/jobs/..%2f..%2fetc/logs", 404, "unknown_job"),
        ("{}?from=-1", 400, "invalid_request"),
        ("{}?lines=x", 400, "invalid_request"),
        ("{}?from=1", 400, "invalid_request"),
        ("{}?from=0&lines=1", 400, "invalid_request"),
    ],
)
@asynchronous
async def test_a_wrong_address_is_refused_before_the_handshake(
    tmp_path: Path, path: str, status: int, code: str
) -> None:
    async with serving(tmp_path) as server, written_job(server) as job, raw_line(server) as line:
        await line.send(handshake(path.format(job.socket), {"Connection": "Upgrade, close"}))
        answer = await line.rest()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert f'"code":"{code}"'.encode() in answer


@asynchronous
async def test_the_address_of_a_socket_wants_its_handshake(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job:
        check_error(await server.get(job.socket), 400, "invalid_request")


@asynchronous
async def test_cancel_ends_a_tail_here_and_nowhere_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job, talking(server) as talk:
        await job.writer.write(LINES)
        for id in ("a", "b"):
            await talk.say(op="tail", id=id, job_id=job.id)
            await talk.next(id)
        await talk.say(op="cancel", id="c", target="a")
        assert await talk.whole("a") == [{"type": "complete"}]
        assert job.followers == 1
        await job.writer.write(b"four\n")
        assert (await talk.next("b"))["text"] == "four\n"


@asynchronous
async def test_a_log_socket_takes_no_messages_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job, talking(server, job.socket) as talk:
        await talk.say(op="cancel", id="a", target="b")
        told = await talk.next()
        assert (told["type"], told["code"]) == ("error", "invalid_request")
        await job.writer.write(LINES)
        job.finish()
        check_log(await talk.whole(), job, LINES)


@asynchronous
async def test_who_leaves_follows_no_more_and_comes_back_by_offset(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job:
        content, offset = b"", 0
        for number in range(5):
            async with talking(server, f"{job.socket}?from={offset}") as talk:
                content += b"line %d\n" % number
                await job.writer.write(b"line %d\n" % number)
                told = await talk.next()
                assert (told["offset"], told["text"]) == (offset, f"line {number}\n")
                offset = told["next_offset"]
            await comes_true(lambda: job.followers == 0)
            content += b"while away\n"
            await job.writer.write(b"while away\n")
            async with talking(server, f"{job.socket}?from={offset}") as talk:
                assert (await talk.next())["text"] == "while away\n"
                offset = len(content)


@asynchronous
async def test_a_tail_and_a_stream_of_tokens_share_a_socket(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, models={"m": says("chunks:300")}) as server,
        written_job(server) as job,
        talking(server) as talk,
    ):
        await talk.say(op="tail", id="log", job_id=job.id)
        await talk.say(op="infer", id="tokens", model="m", text="hi")
        await job.writer.write(LINES)
        job.finish()
        assert len(await talk.whole("tokens")) > 300
        check_log(await talk.whole("log"), job, LINES)


@asynchronous
async def test_silence_is_broken_by_the_sockets_heartbeats(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, "--heartbeat", "0.05") as server,
        written_job(server) as job,
        talking(server, job.socket) as talk,
    ):
        reading = asyncio.create_task(talk.next())
        await comes_true(lambda: talk.heartbeats >= 2)
        await job.writer.write(LINES)
        assert (await reading)["text"] == LINES.decode()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was encoded."""
    calls: list[Any] = []
    to_message = logwire._to_message

    def counted(*args: Any) -> dict[str, Any]:
        calls.append(args)
        return to_message(*args)

    monkeypatch.setattr(logwire, "_to_message", counted)
    return calls


@asynchronous
async def test_a_part_is_encoded_and_framed_once_for_all(
    tmp_path: Path, encoded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    framed, frame = [], SocketWriter.frame

    def count(writer: SocketWriter, payload: bytes) -> bytes:
        framed.append(payload)
        return frame(writer, payload)

    monkeypatch.setattr(SocketWriter, "frame", count)
    async with serving(tmp_path) as server, written_job(server) as job:
        talks = [await server.http.ws_connect(server.url + job.socket) for _ in range(50)]
        await comes_true(lambda: job.followers == 50)
        await job.writer.write(LINES)
        assert len({await talk.receive_str() for talk in talks}) == 1
        assert len(encoded) == 1
        assert len(framed) == 1
        for talk in talks:
            await talk.close()


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@asynchronous
async def test_followers_with_ids_of_their_own_share_one_encoding(
    tmp_path: Path, encoded: list[Any], protocol: str
) -> None:
    ids: list[Any] = ["a", 5, 'quoted " % id', "ü" * 100]
    async with (
        serving(tmp_path) as server,
        written_job(server) as job,
        talking(server, protocols=(protocol,)) as talk,
    ):
        for id in ids:
            await talk.say(op="tail", id=id, job_id=job.id)
        await comes_true(lambda: job.followers == 4)
        await job.writer.write(LINES)
        assert [(await talk.next(id))["text"] for id in ids] == [LINES.decode() if protocol == JSON else LINES] * 4
        assert len(encoded) == 1


def unwritten(server: Server) -> int:
    connections = [cast(SocketHandler, handler).ws_connection for handler in server.services.sockets]
    return sum(len(cast(WebSocketProtocol13, connection).stream._write_buffer) for connection in connections)


@asynchronous
async def test_a_follower_that_reads_nothing_is_never_cut_fills_no_memory_and_slows_nobody(tmp_path: Path) -> None:
    block = (b"x" * 99 + b"\n") * 10_000
    async with (
        serving(tmp_path) as server,
        written_job(server) as job,
        raw_socket(server, job.socket) as asleep,
        talking(server, job.socket) as awake,
    ):
        seen = 0
        for number in range(10):
            await job.writer.write(block)
            while seen < (number + 1) * len(block):
                seen = (await awake.next())["next_offset"]
            assert unwritten(server) < 1_000_000
        job.finish()
        assert [message["type"] for message in await awake.whole()] == ["job", "complete"]
        told = [await asleep.message()]
        while told[-1]["type"] != "complete":
            told.append(await asleep.message())
        check_log(told, job, block * 10)
        assert await asleep.close_code() == 1000


async def read_all(talk: Talk, content: bytes, offset: int = 0) -> None:
    """Reads to the end; every byte is compared as it comes."""
    while (message := await talk.next())["type"] == "log":
        assert message["offset"] == offset
        offset = message["next_offset"]
        assert message["text"].encode() == content[message["offset"] : offset]
    assert offset == len(content)
    assert (await talk.next())["type"] == "complete"


@asynchronous
async def test_fifty_followers_of_a_hundred_thousand_lines_while_tokens_stream(tmp_path: Path) -> None:
    lines = [b"%06d a line that a script has printed\n" % number for number in range(100_000)]
    content = b"".join(lines)

    async def follow(server: Server, job: WrittenJob, offset: int = 0) -> None:
        async with talking(server, f"{job.socket}?from={offset}") as talk:
            await read_all(talk, content, offset)

    async with serving(tmp_path, models={"m": says("chunks:300")}) as server, written_job(server) as job:
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(follow(server, job))
            await comes_true(lambda: job.followers == 40)
            for first in range(0, 100_000, 500):
                await job.writer.write(*lines[first : first + 500])
                if first % 10_000 == 0:
                    group.create_task(follow(server, job, first))
                    answer = await server.post("/api/stream/m", {"text": "hi"})
                    assert answer.events[-1]["type"] == "complete"
            job.finish()
        await comes_true(lambda: job.followers == 0)


@asynchronous
async def test_a_shutdown_says_that_it_goes_away(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job:
        ws = await server.http.ws_connect(server.url + job.socket)
        await comes_true(lambda: job.followers == 1)
        for handler in list(server.services.sockets):
            handler.go_away()
        await ws.receive()
        assert ws.close_code == 1001
        await comes_true(lambda: job.followers == 0)


@asynchronous
async def test_a_close_frame_of_the_clients_ends_the_following(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, written_job(server) as job, raw_socket(server, job.socket) as line:
        await comes_true(lambda: job.followers == 1)
        await line.send(frame(TEXT, b"{}"))
        await line.send(frame(CLOSE, b"\x03\xe8"))
        assert await line.close_code() == 1000
        await comes_true(lambda: job.followers == 0)
