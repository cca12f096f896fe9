"""GET /api/hyperpod/jobs/{job_id}/logs: a log so far, in every content type, and followed as it is written."""

from __future__ import annotations

import io
import json
import os
import resource
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.async_tests import async_test, wait_until
from tests.raw_http import raw_connection, request_head
from tests.running_server import RunningServer, parse_sse, running_server
from tests.server.checks import check_error
from tests.server.jobs.log_jobs import WrittenJob, open_written_job

SSE, NDJSON, TEXT = "text/event-stream", "application/x-ndjson", "text/plain"
EVENTS = "application/vnd.forgeline.events+msgpack"

LINES = b"one\ntwo\nthree\n"


async def get_logs(server: RunningServer, job: WrittenJob, query: str = "") -> dict[str, Any]:
    answer = await server.get(job.logs + query)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json.keys() == {"status", "logs"}
    assert answer.json["status"] == "success"
    logs: dict[str, Any] = answer.json["logs"]
    return logs


@async_test
async def test_log_of_job_without_output_is_empty(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        empty = {"job_id": job.id, "logs": "", "offset": 0, "next_offset": 0, "complete": False}
        assert await get_logs(server, job) == empty
        assert await get_logs(server, job, "?tail=5") == empty
        assert await get_logs(server, job, "?from=0") == empty
        assert (await server.get(job.logs, Accept=TEXT)).content == b""
        job.finish()
        assert await get_logs(server, job) == empty | {"complete": True}


@pytest.mark.parametrize(
    ("query", "logs", "offset"),
    [
        ("", "one\ntwo\nthree\n", 0),
        ("?tail=2", "two\nthree\n", 4),
        ("?tail=0", "", 14),
        ("?tail=1000000", "one\ntwo\nthree\n", 0),
        ("?from=4", "two\nthree\n", 4),
        ("?from=14", "", 14),
    ],
)
@async_test
async def test_log_whole_or_tail_or_from_offset(tmp_path: Path, query: str, logs: str, offset: int) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(LINES)
        expected = {"job_id": job.id, "logs": logs, "offset": offset, "next_offset": 14, "complete": False}
        assert await get_logs(server, job, query) == expected
        plain = await server.get(job.logs + query, Accept=TEXT)
        assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert plain.headers["X-Content-Type-Options"] == "nosniff"
        assert plain.headers["Content-Length"] == str(len(logs))
        assert plain.content == logs.encode()
        packed = (await server.get(job.logs + query, Accept="application/msgpack")).unpacked
        assert packed == {"status": "success", "logs": expected | {"logs": logs.encode()}}
        job.finish()
        assert (await get_logs(server, job, query))["complete"] is True


@pytest.mark.parametrize("accept", ["application/json", TEXT, SSE])
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("?tail=-1", "tail"),
        ("?tail=x", "tail"),
        ("?tail=1.5", "tail"),
        ("?tail=", "tail"),
        ("?tail=%2B1", "tail"),
        ("?tail=²", "tail"),
        ("?tail=" + "9" * 5000, "tail"),
        ("?from=-1", "from"),
        ("?from=0x10", "from"),
        ("?from=15", "from"),
        ("?from=1&tail=1", "from, tail"),
    ],
)
@async_test
async def test_log_with_invalid_position_is_rejected(tmp_path: Path, query: str, name: str, accept: str) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(LINES)
        answer = await server.get(job.logs + query, Accept=accept)
        check_error(answer, 400, "invalid_request")
        assert answer.json["error"].startswith(f"{name}: expected ")


@pytest.mark.parametrize(
    "job_id", ["x", "..", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "%00", "a" * 5000, "0" * 36, "%ff", "small%2flog"]
)
@async_test
async def test_log_of_unknown_job_is_404_and_no_id_becomes_path(tmp_path: Path, job_id: str) -> None:
    async with running_server(tmp_path) as server, raw_connection(server) as line:
        answer = await line.send_request(None, f"/api/hyperpod/jobs/{job_id}/logs", "GET")
        if job_id == "%ff":  # no UTF-8: no address of ours
            check_error(answer, 400, "invalid_request")
        else:
            check_error(answer, 404, "unknown_job")


@async_test
async def test_log_invalid_utf8_is_replaced_in_json_only(tmp_path: Path) -> None:
    content = (
        b"\xffone\xc3(\n\x1b[31mred\x1b[0m <script>alert('&')</script> \"\\\n\r 50 %\r\0 \xf0\x9f\x98\x80 end \xe2\x82"
    )
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(content)
        running = await get_logs(server, job)
        assert running["logs"] == content[:-2].decode("utf-8", "replace")
        assert running["next_offset"] == len(content) - 2  # the rest of that character may still come
        assert (await server.get(job.logs, Accept=TEXT)).content == content
        job.finish()
        finished = await get_logs(server, job)
        assert finished["logs"] == content.decode("utf-8", "replace")
        assert (finished["next_offset"], finished["complete"]) == (len(content), True)
        packed = (await server.get(job.logs, Accept="application/msgpack")).unpacked
        assert packed["logs"]["logs"] == content


@async_test
async def test_log_characters_across_blocks_are_whole(tmp_path: Path) -> None:
    content = ("x" + "😀€é" * 40_000).encode()
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(content)
        assert (await get_logs(server, job))["logs"] == content.decode()


def write_sparse_log(job: WrittenJob, size: int) -> bytes:
    """Write a log of `size` bytes, nearly all of them 0; return its end."""
    end = b"\nlast line\n"
    with job.tracked.directory.log.open("wb") as log:
        log.truncate(size - len(end))
        log.seek(0, os.SEEK_END)
        log.write(end)
    return end


@async_test
async def test_log_tail_of_gigabyte_sends_only_tail(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        write_sparse_log(job, 1_000_000_000)
        assert (await get_logs(server, job, "?tail=1"))["logs"] == "last line\n"
        assert (await get_logs(server, job, "?from=999999990"))["offset"] == 999_999_990


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack", TEXT, SSE, NDJSON, EVENTS])
@async_test
async def test_log_of_gigabyte_to_stalled_client_costs_no_memory(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        write_sparse_log(job, 1_000_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with raw_connection(server) as line:
            await line.send(request_head(job.logs, "GET", Accept=accept))
            await line.reader.readexactly(1000)
            for _ in range(20):
                assert (await server.get("/healthz")).status == 200
        await server.services.in_flight.wait_until_empty()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; the client's own are in it
        assert job.followers == 0


@async_test
async def test_log_that_grows_while_sent_ends_at_first_size(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        write_sparse_log(job, 5_000_000)
        async with server.http.get(server.url + job.logs) as response:
            await job.writer.write(b"more\n")
            logs = (await response.json())["logs"]
        assert logs["next_offset"] == 5_000_000
        assert logs["logs"].endswith("\nlast line\n")


@async_test
async def test_log_that_shrinks_while_sent_is_cut(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job, raw_connection(server) as line:
        write_sparse_log(job, 5_000_000)
        await line.send(request_head(job.logs, "GET"))
        await line.reader.readexactly(1000)
        os.truncate(job.tracked.directory.log, 100)
        assert not (await line.wait_closed()).endswith(b"0\r\n\r\n")


async def next_event(response: Any) -> dict[str, Any]:
    (event,) = parse_sse(await response.content.readuntil(b"\n\n"))
    return event


@async_test
async def test_follow_log_to_end_of_job(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        async with server.http.get(server.url + job.logs, headers={"Accept": SSE}) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == SSE
            await job.writer.write(b"one\ntwo\n")
            assert await next_event(response) == {
                "type": "log",
                "job_id": job.id,
                "offset": 0,
                "next_offset": 8,
                "text": "one\ntwo\n",
            }
            await job.writer.write(b"no end")
            job.finish()
            last, ended, complete = parse_sse(await response.read())
        assert (last["offset"], last["text"]) == (8, "no end")
        assert ended == {"type": "job", **job.tracked.job.describe()}
        assert ended["status"] == "succeeded"
        assert complete == {"type": "complete"}


@pytest.mark.parametrize("accept", [NDJSON, EVENTS])
@async_test
async def test_follow_log_in_other_content_types(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(b"\xff one\n")
        job.finish()
        answer = await server.get(job.logs, Accept=accept)
        events = answer.ndjson_events if accept == NDJSON else list(msgpack.Unpacker(io.BytesIO(answer.content)))
        assert [event["type"] for event in events] == ["log", "job", "complete"]
        assert events[0]["text"] == ("\ufffd one\n" if accept == NDJSON else b"\xff one\n")


@async_test
async def test_follow_log_resumes_at_last_event_id(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(LINES)
        job.finish()
        for query in ("", "?tail=1", "?from=0"):
            answer = await server.get(job.logs + query, Accept=SSE, **{"Last-Event-ID": "4"})
            assert [event.get("text") for event in answer.events] == ["two\nthree\n", None, None]
        check_error(await server.get(job.logs, Accept=SSE, **{"Last-Event-ID": "x"}), 400, "invalid_request")
        check_error(await server.get(job.logs, Accept=SSE, **{"Last-Event-ID": "15"}), 400, "invalid_request")


@pytest.mark.parametrize(("query", "text"), [("?tail=1", "three\n"), ("?from=4", "two\nthree\n")])
@async_test
async def test_follow_log_from_position(tmp_path: Path, query: str, text: str) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(LINES)
        job.finish()
        assert (await server.get(job.logs + query, Accept=SSE)).events[0]["text"] == text


@async_test
async def test_follow_log_heartbeats_without_output(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, "--heartbeat", "0.05") as server,
        open_written_job(server) as job,
        server.http.get(server.url + job.logs, headers={"Accept": SSE}) as response,
    ):
        for _ in range(3):
            assert await next_event(response) == {"type": "heartbeat"}
        await job.writer.write(b"one\n")
        while (event := await next_event(response))["type"] == "heartbeat":
            pass
        assert event["text"] == "one\n"


@async_test
async def test_client_disconnect_ends_follow(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        async with raw_connection(server) as line:
            await line.send(request_head(job.logs, "GET", Accept=SSE))
            await line.reader.readuntil(b"\r\n\r\n")
            assert job.followers == 1
        await wait_until(lambda: job.followers == 0)
        await server.services.in_flight.wait_until_empty()


@async_test
async def test_log_content_types(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        check_error(await server.get(job.logs, Accept="image/png"), 406, "not_acceptable")
        check_error(await server.post(job.logs, {}), 405, "method_not_allowed")
        assert json.loads((await server.get(job.logs, Accept="*/*")).content)["status"] == "success"


SCRIPT = """#!/bin/sh
for number in 1 2 3; do echo "line $number"; done
printf '\\033[32mno end \\360\\237\\230\\200'
"""


@async_test
async def test_log_of_real_job_is_followed_and_read_again(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    (presets / "hyperpod").mkdir(parents=True)
    (presets / "hyperpod" / "small.yaml").write_text("scripts: {deploy: print.sh}\nconfig: {global: {stackName: s}}\n")
    (presets / "print.sh").write_text(SCRIPT)
    printed = "line 1\nline 2\nline 3\n\x1b[32mno end 😀"
    async with running_server(tmp_path) as server:
        submitted = await server.post("/api/hyperpod/deploy", {"dry_run": False})
        assert submitted.status == 202, submitted.content
        path = submitted.json["job"]["job_id"].join(("/api/hyperpod/jobs/", "/logs"))
        *parts, ended, complete = (await server.get(path, Accept=SSE)).events
        assert ended["status"] == "succeeded"
        assert complete == {"type": "complete"}
        assert printed in "".join(part["text"] for part in parts)
        assert (await server.get(path)).json["logs"]["logs"] == "".join(part["text"] for part in parts)
