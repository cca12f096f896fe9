"""POST /api/stream/{model_name}: tokens as they come, in every format, whatever happens to the model."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest

from server.inference.encoders import SseEncoder
from tests.async_tests import async_test
from tests.raw_http import ConnectionCut, json_body, raw_connection
from tests.running_server import RunningServer, running_server, scripted_model, upstream_model
from tests.server.checks import check_error, check_stream, text_of
from tests.upstream import (
    CUT,
    Responder,
    Upstream,
    error_response,
    hanging_response,
    json_response,
    raw_response,
    stream_bytes,
    stream_response,
)

HI = {"text": "hi"}
TIMEOUTS = {"first_token": 0.5, "between_tokens": 0.5}
ERROR_EVENT = {"error": {"message": "CUDA error", "type": "internal"}}


@asynccontextmanager
async def serving_upstream_bytes(
    folder: Path, answer: Responder, *flags: str, **keys: Any
) -> AsyncIterator[tuple[RunningServer, Upstream]]:
    """The server, with a model `m` whose upstream answers so. Nothing may be left of its calls at the end."""
    async with (
        Upstream() as up,
        running_server(folder, *flags, models={"m": upstream_model(up.base_url, **keys)}) as server,
    ):
        up.response = answer
        yield server, up
        await up.wait_until_idle()
        await server.wait_until_idle()


@async_test
async def test_stream_sends_each_token_at_once(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serving_upstream_bytes(tmp_path, stream_response(["Hello", gate, " world"])) as (server, _):
        async with server.open_stream("/api/stream/m", HI) as live:
            assert live.response.status == 200
            assert live.response.content_type == "text/event-stream"
            events = [await live.next_event(), await live.next_event()]
            assert [event["type"] for event in events] == ["start", "chunk"]
            gate.set()
            outcomes = check_stream(events + await live.remaining_events())
        assert text_of(outcomes["m"]) == "Hello world"


@async_test
async def test_stream_start_has_random_id_and_request(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        answers = [await server.post("/api/stream/m", HI) for _ in range(2)]
    starts = [answer.events[0] for answer in answers]
    assert starts[0]["models"] == ["m"]
    assert starts[0]["request"]["text"] == "hi"
    assert [start["stream_id"] for start in starts] == [answer.headers["X-Stream-Id"] for answer in answers]
    assert starts[0]["stream_id"] != starts[1]["stream_id"]
    assert len(starts[0]["stream_id"]) >= 22  # base64: 6 bits each


@async_test
async def test_stream_result_equals_plain_answer(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, models={"m": scripted_model("say:a b c; usage:3,4; stop:max_tokens")}
    ) as server:
        plain = (await server.post("/api/models/m", HI)).json
        result = check_stream((await server.post("/api/stream/m", HI)).events)["m"]
    assert result.keys() == plain.keys() | {"type", "seq", "model"}
    assert result["response"] | {"id": ""} == plain["response"] | {"id": ""}
    assert result["request"] == plain["request"]
    assert result["metadata"].keys() == plain["metadata"].keys()


@pytest.mark.parametrize("accept", ["", "*/*", "text/*", "text/event-stream", "text/html, */*;q=0.1"])
@async_test
async def test_stream_default_format_is_sse(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        answer = await server.post("/api/stream/m", HI, Accept=accept)
        assert answer.headers["Content-Type"].partition(";")[0] == "text/event-stream"
        check_stream(answer.events)


@async_test
async def test_stream_formats_have_same_events(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:ünï \U0001f525 text")}) as server:
        sse = (await server.post("/api/stream/m", HI)).events
        lines = (await server.post("/api/stream/m", HI, Accept="application/x-ndjson")).ndjson_events
        kind = "application/vnd.forgeline.events+msgpack"
        packed = await server.post("/api/stream/m", HI, Accept=kind)
        text = await server.post("/api/stream/m", HI, Accept="text/plain")
    maps = list(msgpack.Unpacker(io.BytesIO(packed.content)))
    assert packed.headers["Content-Type"] == kind
    for events in (sse, lines, maps):
        assert text_of(check_stream(events)["m"]) == "ünï \U0001f525 text"
    assert [e["type"] for e in sse] == [e["type"] for e in lines] == [e["type"] for e in maps]
    assert text.headers["Content-Type"].startswith("text/plain")
    assert text.content.decode() == "ünï \U0001f525 text"


@pytest.mark.parametrize("accept", ["application/msgpack", "application/json", "image/png", "text/event-stream;q=0"])
@async_test
async def test_stream_unsupported_accept_is_406(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        check_error(await server.post("/api/stream/m", HI, Accept=accept), 406, "not_acceptable", "text/event-stream")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\u2028", "\n\ndata: x\n\n"])
@async_test
async def test_stream_text_cannot_break_framing(tmp_path: Path, newline: str) -> None:
    spoken = f"a{newline}b"
    async with serving_upstream_bytes(tmp_path, stream_response([spoken, newline, "%d %s"])) as (server, _):
        answer = await server.post("/api/stream/m", HI)
        assert text_of(check_stream(answer.events)["m"]) == f"{spoken}{newline}%d %s"


VALID_STREAM = stream_bytes(["Hello", " wörld", "\U0001f525"])


@pytest.mark.parametrize("block", [1, 2, 7, 100])
@async_test
async def test_stream_upstream_bytes_may_be_split_anywhere(tmp_path: Path, block: int) -> None:
    answer = raw_response(VALID_STREAM, headers={"Content-Type": "text/event-stream"}, block_size=block)
    async with serving_upstream_bytes(tmp_path, answer) as (server, _):
        outcomes = check_stream((await server.post("/api/stream/m", HI)).events)
        assert text_of(outcomes["m"]) == "Hello wörld\U0001f525"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (error_response(400, "too long"), 400, "invalid_request"),
        (error_response(429), 429, "rate_limited"),
        (error_response(500, "broken"), 500, "model_error"),
        (error_response(503), 503, "unavailable"),
        (stream_response([ERROR_EVENT]), 500, "model_error"),
        (stream_response([CUT]), 500, "model_error"),
        (raw_response([b"garbage\n\n"], headers={"Content-Type": "text/event-stream"}), 500, "model_error"),
        (hanging_response(), 503, "unavailable"),
    ],
)
@async_test
async def test_stream_failure_before_first_token_has_own_status(
    tmp_path: Path, answer: Responder, status: int, code: str
) -> None:
    async with serving_upstream_bytes(tmp_path, answer, timeouts=TIMEOUTS) as (server, _):
        for accept in ["text/event-stream", "application/x-ndjson", "text/plain"]:
            refused = await server.post("/api/stream/m", HI, Accept=accept)
            check_error(refused, status, code)
            assert "X-Stream-Id" not in refused.headers


LATE_FAILURES = [
    stream_response(["Hello", ERROR_EVENT]),
    stream_response(["Hello", CUT]),
    stream_response(["Hello", b"data: {garbage\n\n"]),
    stream_response(["Hello"], finish_reason=None, done=False),
    stream_response(["Hello", asyncio.Event()]),
    raw_response(VALID_STREAM, headers={"Content-Type": "text/event-stream"}, cut_at=len(VALID_STREAM[0]) + 20),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("answer", LATE_FAILURES)
@async_test
async def test_stream_failure_after_first_token_is_event(tmp_path: Path, answer: Responder) -> None:
    async with serving_upstream_bytes(tmp_path, answer, timeouts=TIMEOUTS) as (server, _):
        events = (await server.post("/api/stream/m", HI)).events
    failure = check_stream(events)["m"]
    assert [event["type"] for event in events] == ["start", "chunk", "error", "complete"]
    assert failure.keys() == {"type", "seq", "model", "error", "code"}
    assert failure["code"] in ("model_error", "unavailable")


@async_test
async def test_stream_as_text_is_aborted_on_failure(tmp_path: Path) -> None:
    models = {"good": scripted_model("say:Hello there"), "bad": scripted_model("say:Hello there; fail:model_error")}
    async with running_server(tmp_path, models=models) as server:
        assert (await server.post("/api/stream/good", HI, Accept="text/plain")).content == b"Hello there"
        with pytest.raises(aiohttp.ClientPayloadError):
            await server.post("/api/stream/bad", HI, Accept="text/plain")
        async with raw_connection(server) as connection:
            with pytest.raises(ConnectionCut):
                await connection.send_request(json_body(), "/api/stream/bad", Accept="text/plain")
        await server.wait_until_idle()


@async_test
async def test_stream_internal_error_aborts_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> bytes:
        raise RuntimeError("a fault of our own")

    gate = asyncio.Event()
    async with (
        serving_upstream_bytes(tmp_path, stream_response(["Hello", gate])) as (server, _),
        server.open_stream("/api/stream/m", HI) as live,
    ):
        assert [(await live.next_event())["type"] for _ in range(2)] == ["start", "chunk"]
        monkeypatch.setattr(SseEncoder, "encode", explode)
        gate.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await live.remaining_events()


@async_test
async def test_stream_begins_after_heartbeat_without_token(tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = raw_response([gate, b"no"], status=429)
    async with serving_upstream_bytes(tmp_path, answer, "--heartbeat", "0.02") as (server, _):
        async with server.open_stream("/api/stream/m", HI) as live:
            assert live.response.status == 200
            first = [await live.next_event() for _ in range(3)]
            assert [event["type"] for event in first] == ["start", "heartbeat", "heartbeat"]
            assert first[1] == {"type": "heartbeat"}
            gate.set()
            failure = check_stream(first + await live.remaining_events())["m"]
        assert failure["code"] == "rate_limited"
        assert failure["retry_after"] >= 1


@async_test
async def test_stream_heartbeats_between_tokens(tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = stream_response(["Hello", gate, "!"])
    async with (
        serving_upstream_bytes(tmp_path, answer, "--heartbeat", "0.02") as (server, _),
        server.open_stream("/api/stream/m", HI) as live,
    ):
        events = [await live.next_event() for _ in range(4)]
        assert [event["type"] for event in events] == ["start", "chunk", "heartbeat", "heartbeat"]
        gate.set()
        assert text_of(check_stream(events + await live.remaining_events())["m"]) == "Hello!"


@async_test
async def test_stream_as_text_has_no_heartbeat(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, "--heartbeat", "0.02", models={"m": scripted_model("pause:0.1; say:Hello")}
    ) as server:
        assert (await server.post("/api/stream/m", HI, Accept="text/plain")).content == b"Hello"


@pytest.mark.parametrize("script", ["stop:end_turn", "think:hm", "say:Hello; unstreamed"])
@async_test
async def test_stream_of_empty_or_single_chunk_is_whole(tmp_path: Path, script: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model(script)}) as server:
        outcomes = check_stream((await server.post("/api/stream/m", HI)).events)
        assert outcomes["m"]["type"] == "result"


@async_test
async def test_stream_of_non_streaming_model_is_one_chunk(tmp_path: Path) -> None:
    async with serving_upstream_bytes(tmp_path, json_response("Hello world"), capabilities=["text"]) as (server, _):
        events = (await server.post("/api/stream/m", HI)).events
        assert [event["type"] for event in events] == ["start", "chunk", "result", "complete"]
        check_stream(events)


@async_test
async def test_stream_unknown_model_is_404_and_not_deployed_is_503(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"later": scripted_model("fail:model_not_deployed")}) as server:
        check_error(await server.post("/api/stream/nobody", HI), 404, "unknown_model")
        check_error(await server.post("/api/stream/later", HI), 503, "model_not_deployed")


@async_test
async def test_stream_200_at_once_are_whole_and_in_order(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        texts = [" ".join(f"{n}-{word}" for word in range(50)) for n in range(200)]
        answers = await asyncio.gather(*(server.post("/api/stream/m", {"text": text}) for text in texts))
        for text, answer in zip(texts, answers, strict=True):
            assert text_of(check_stream(answer.events)["m"]) == text
        await server.wait_until_idle()
        assert server.scripted.open_responses == 0


@async_test
async def test_stream_stopped_has_error_and_complete(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serving_upstream_bytes(tmp_path, stream_response(["Hello", gate])) as (server, up):
        async with server.open_stream("/api/stream/m", HI) as live:
            events = [await live.next_event(), await live.next_event()]
            path = f"/api/streams/{live.response.headers['X-Stream-Id']}"
            assert (await server.request("DELETE", path)).status == 204
            assert check_stream(events + await live.remaining_events())["m"]["code"] == "cancelled"
        await up.wait_until_idle()
        assert up.cancelled == 1
