"""Job logs on WebSockets: the operation `tail`, and the endpoint for one log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from tornado.websocket import WebSocketProtocol13

from server import fast
from server.handlers.socket import SocketHandler
from server.inference.writers import SocketWriter
from server.jobs import logs
from tests.async_tests import async_test, wait_until
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.checks import check_error
from tests.server.jobs.log_jobs import WrittenJob, open_written_job
from tests.sockets import (
    CLOSE,
    JSON,
    MSGPACK,
    TEXT,
    Message,
    WebSocketClient,
    connect_websocket,
    frame,
    handshake_request,
    open_raw_connection,
    open_raw_websocket,
)

LINES = b"one\ntwo\nthree\n"
HOSTILE = b"\xff\x1b[31mred\x1b[0m <script>alert('&')</script> \"\\ \r 50 %\r \0 \xf0\x9f\x98\x80\n"


def check_log(messages: list[Message], job: WrittenJob, content: bytes, *, offset: int = 0) -> None:
    """Check that these messages are a job's whole log from `offset`, and then its end."""
    *parts, ended, complete = messages
    for part in parts:
        assert part.keys() == {"type", "job_id", "offset", "next_offset", "text"}
        assert (part["type"], part["job_id"], part["offset"]) == ("log", job.id, offset)
        text = part["text"].encode() if isinstance(part["text"], str) else part["text"]
        assert text == content[offset : part["next_offset"]]
        offset = part["next_offset"]
    assert offset == len(content)
    assert ended == {"type": "job", **job.tracked.job.describe()}
    assert complete == {"type": "complete"}


@async_test
async def test_tail_sends_log_as_it_is_written(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job, connect_websocket(server) as client:
        await job.writer.write(b"one\n")
        await client.send(op="tail", id="a", job_id=job.id)
        messages = [await client.next_event("a")]
        await job.writer.write(b"two\n")
        messages.append(await client.next_event("a"))
        await job.writer.write(b"three")
        job.finish()
        messages += await client.read_until_complete("a")
        check_log(messages, job, b"one\ntwo\nthree")
        assert [part["text"] for part in messages[:3]] == ["one\n", "two\n", "three"]


@pytest.mark.parametrize(("fields", "offset"), [({"from": 4}, 4), ({"lines": 1}, 8), ({"lines": 0}, 14), ({}, 0)])
@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@async_test
async def test_tail_from_position(tmp_path: Path, fields: dict[str, int], offset: int, protocol: str) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(LINES)
        job.finish()
        async with connect_websocket(server, protocols=(protocol,)) as client:
            await client.send(op="tail", id=7, job_id=job.id, **fields)
            check_log(await client.read_until_complete(7), job, LINES, offset=offset)
        query = "?" + "&".join(f"{name}={value}" for name, value in fields.items())
        async with connect_websocket(server, job.socket + query, protocols=(protocol,)) as client:
            check_log(await client.read_until_complete(), job, LINES, offset=offset)
            assert await client.wait_closed() == 1000


@async_test
async def test_tail_invalid_utf8_is_replaced_in_json_only(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(HOSTILE)
        job.finish()
        for path, op in ((job.socket, {}), ("/ws", {"op": "tail", "id": "ü", "job_id": job.id})):
            for protocol, text in ((JSON, HOSTILE.decode("utf-8", "replace")), (MSGPACK, HOSTILE)):
                async with connect_websocket(server, path, (protocol,)) as client:
                    if op:
                        await client.send(**op)
                    assert (await client.read_until_complete(op.get("id")))[0]["text"] == text


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
@async_test
async def test_tail_with_invalid_field_is_rejected_and_socket_continues(
    tmp_path: Path, fields: dict[str, Any], name: str
) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job, connect_websocket(server) as client:
        await job.writer.write(LINES)
        job.finish()
        await client.send(**{"op": "tail", "id": "a", "job_id": job.id, **fields})
        message = await client.next_event("a")
        assert (message["type"], message["code"]) == ("error", "invalid_request")
        assert message["error"].startswith(f"{name}: ")
        await client.send(op="tail", id="a", job_id=job.id)
        check_log(await client.read_until_complete("a"), job, LINES)


@pytest.mark.parametrize("job_id", ["", "x", "../../etc/passwd", "\0", "x" * 5000])
@async_test
async def test_tail_of_unknown_job_is_error_with_client_id(tmp_path: Path, job_id: str) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        await client.send(op="tail", id="a", job_id=job_id)
        message = await client.next_event("a")
        assert (message["type"], message["code"]) == ("error", "unknown_job")


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
@async_test
async def test_log_socket_with_invalid_query_is_rejected_before_handshake(
    tmp_path: Path, path: str, status: int, code: str
) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job, open_raw_connection(server) as line:
        await line.send(handshake_request(path.format(job.socket), {"Connection": "Upgrade, close"}))
        answer = await line.read_to_end()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert f'"code":"{code}"'.encode() in answer


@async_test
async def test_log_socket_without_handshake_is_rejected(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        check_error(await server.get(job.socket), 400, "invalid_request")


@async_test
async def test_cancel_ends_only_its_tail(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job, connect_websocket(server) as client:
        await job.writer.write(LINES)
        for id in ("a", "b"):
            await client.send(op="tail", id=id, job_id=job.id)
            await client.next_event(id)
        await client.send(op="cancel", id="c", target="a")
        assert await client.read_until_complete("a") == [{"type": "complete"}]
        assert job.followers == 1
        await job.writer.write(b"four\n")
        assert (await client.next_event("b"))["text"] == "four\n"


@async_test
async def test_log_socket_rejects_messages(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        open_written_job(server) as job,
        connect_websocket(server, job.socket) as client,
    ):
        await client.send(op="cancel", id="a", target="b")
        message = await client.next_event()
        assert (message["type"], message["code"]) == ("error", "invalid_request")
        await job.writer.write(LINES)
        job.finish()
        check_log(await client.read_until_complete(), job, LINES)


@async_test
async def test_log_socket_reconnect_resumes_by_offset(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        content, offset = b"", 0
        for number in range(5):
            async with connect_websocket(server, f"{job.socket}?from={offset}") as client:
                content += b"line %d\n" % number
                await job.writer.write(b"line %d\n" % number)
                message = await client.next_event()
                assert (message["offset"], message["text"]) == (offset, f"line {number}\n")
                offset = message["next_offset"]
            await wait_until(lambda: job.followers == 0)
            content += b"while away\n"
            await job.writer.write(b"while away\n")
            async with connect_websocket(server, f"{job.socket}?from={offset}") as client:
                assert (await client.next_event())["text"] == "while away\n"
                offset = len(content)


@async_test
async def test_tail_and_inference_share_socket(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:300")}) as server,
        open_written_job(server) as job,
        connect_websocket(server) as client,
    ):
        await client.send(op="tail", id="log", job_id=job.id)
        await client.send(op="infer", id="tokens", model="m", text="hi")
        await job.writer.write(LINES)
        job.finish()
        assert len(await client.read_until_complete("tokens")) > 300
        check_log(await client.read_until_complete("log"), job, LINES)


@async_test
async def test_log_socket_heartbeats_without_output(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, "--heartbeat", "0.05") as server,
        open_written_job(server) as job,
        connect_websocket(server, job.socket) as client,
    ):
        reading = asyncio.create_task(client.next_event())
        await wait_until(lambda: client.heartbeats >= 2)
        await job.writer.write(LINES)
        assert (await reading)["text"] == LINES.decode()


@pytest.fixture
def encode_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of each call that encoded a part."""
    calls: list[Any] = []
    log_event = logs._log_event

    def count_call(*args: Any) -> dict[str, Any]:
        calls.append(args)
        return log_event(*args)

    monkeypatch.setattr(logs, "_log_event", count_call)
    return calls


@async_test
async def test_log_part_is_encoded_and_framed_once_for_all_sockets(
    tmp_path: Path, encode_calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer_class = fast.FastSocketWriter if fast.ENABLED else SocketWriter
    framed, frame = [], writer_class.frame

    def count(writer: SocketWriter, payload: bytes) -> bytes:
        framed.append(payload)
        return frame(writer, payload)

    monkeypatch.setattr(writer_class, "frame", count)
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        talks = [await server.http.ws_connect(server.url + job.socket) for _ in range(50)]
        await wait_until(lambda: job.followers == 50)
        await job.writer.write(LINES)
        assert len({await client.receive_str() for client in talks}) == 1
        assert len(encode_calls) == 1
        assert len(framed) == 1
        for client in talks:
            await client.close()


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@async_test
async def test_tails_with_different_ids_share_one_encoding(
    tmp_path: Path, encode_calls: list[Any], protocol: str
) -> None:
    ids: list[Any] = ["a", 5, 'quoted " % id', "ü" * 100]
    async with (
        running_server(tmp_path) as server,
        open_written_job(server) as job,
        connect_websocket(server, protocols=(protocol,)) as client,
    ):
        for id in ids:
            await client.send(op="tail", id=id, job_id=job.id)
        await wait_until(lambda: job.followers == 4)
        await job.writer.write(LINES)
        assert [(await client.next_event(id))["text"] for id in ids] == [
            LINES.decode() if protocol == JSON else LINES
        ] * 4
        assert len(encode_calls) == 1


def count_unwritten_bytes(server: RunningServer) -> int:
    connections = [cast(SocketHandler, handler).ws_connection for handler in server.services.websockets]
    return sum(len(cast(WebSocketProtocol13, connection).stream._write_buffer) for connection in connections)


@async_test
async def test_stalled_log_socket_costs_no_memory_and_slows_nobody(tmp_path: Path) -> None:
    block = (b"x" * 99 + b"\n") * 10_000
    async with (
        running_server(tmp_path) as server,
        open_written_job(server) as job,
        open_raw_websocket(server, job.socket) as asleep,
        connect_websocket(server, job.socket) as awake,
    ):
        offset = 0
        for number in range(10):
            await job.writer.write(block)
            while offset < (number + 1) * len(block):
                offset = (await awake.next_event())["next_offset"]
            assert count_unwritten_bytes(server) < 1_000_000
        job.finish()
        assert [message["type"] for message in await awake.read_until_complete()] == ["job", "complete"]
        messages = [await asleep.read_message()]
        while messages[-1]["type"] != "complete":
            messages.append(await asleep.read_message())
        check_log(messages, job, block * 10)
        assert await asleep.read_close_code() == 1000


async def check_whole_log(client: WebSocketClient, content: bytes, offset: int = 0) -> None:
    """Reads to the end; every byte is compared as it comes."""
    while (message := await client.next_event())["type"] == "log":
        assert message["offset"] == offset
        offset = message["next_offset"]
        assert message["text"].encode() == content[message["offset"] : offset]
    assert offset == len(content)
    assert (await client.next_event())["type"] == "complete"


@async_test
async def test_fifty_log_sockets_follow_100000_lines_while_tokens_stream(tmp_path: Path) -> None:
    lines = [b"%06d a line that a script has printed\n" % number for number in range(100_000)]
    content = b"".join(lines)

    async def follow(server: RunningServer, job: WrittenJob, offset: int = 0) -> None:
        async with connect_websocket(server, f"{job.socket}?from={offset}") as client:
            await check_whole_log(client, content, offset)

    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:300")}) as server,
        open_written_job(server) as job,
    ):
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(follow(server, job))
            await wait_until(lambda: job.followers == 40)
            for first in range(0, 100_000, 500):
                await job.writer.write(*lines[first : first + 500])
                if first % 10_000 == 0:
                    group.create_task(follow(server, job, first))
                    answer = await server.post("/api/stream/m", {"text": "hi"})
                    assert answer.events[-1]["type"] == "complete"
            job.finish()
        await wait_until(lambda: job.followers == 0)


@async_test
async def test_shutdown_closes_log_socket_with_1001(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        ws = await server.http.ws_connect(server.url + job.socket)
        await wait_until(lambda: job.followers == 1)
        for handler in list(server.services.websockets):
            handler.close_for_shutdown()
        await ws.receive()
        assert ws.close_code == 1001
        await wait_until(lambda: job.followers == 0)


@async_test
async def test_close_frame_ends_log_socket(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        open_written_job(server) as job,
        open_raw_websocket(server, job.socket) as line,
    ):
        await wait_until(lambda: job.followers == 1)
        await line.send(frame(TEXT, b"{}"))
        await line.send(frame(CLOSE, b"\x03\xe8"))
        assert await line.read_close_code() == 1000
        await wait_until(lambda: job.followers == 0)
