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

from server.wire import SseEncoder
from tests.aio import asynchronous
from tests.rawhttp import Cut, body_of, connected
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import Server, asks, says, serving
from tests.upstream import CUT, Answer, Upstream, hang, raw, refusal, stream_bytes, stream_of, whole

HI = {"text": "hi"}
PATIENT = {"first_token": 0.5, "between_tokens": 0.5}
ERROR_EVENT = {"error": {"message": "CUDA error", "type": "internal"}}


@asynccontextmanager
async def upstream_says(
    folder: Path, answer: Answer, *flags: str, **keys: Any
) -> AsyncIterator[tuple[Server, Upstream]]:
    """The server, with a model `m` whose upstream answers so. Nothing may be left of its calls at the end."""
    async with Upstream() as up, serving(folder, *flags, models={"m": asks(up.base_url, **keys)}) as server:
        up.answer = answer
        yield server, up
        await up.idle()
        await server.ended()


@asynchronous
async def test_a_token_is_there_before_the_next_is_made(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with upstream_says(tmp_path, stream_of(["Hello", gate, " world"])) as (server, _):
        async with server.live("/api/stream/m", HI) as live:
            assert live.response.status == 200
            assert live.response.content_type == "text/event-stream"
            events = [await live.next(), await live.next()]
            assert [event["type"] for event in events] == ["start", "chunk"]
            gate.set()
            outcomes = check_stream(events + await live.rest())
        assert text_of(outcomes["m"]) == "Hello world"


@asynchronous
async def test_start_names_the_stream_by_128_random_bits_and_says_what_was_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        answers = [await server.post("/api/stream/m", HI) for _ in range(2)]
    starts = [answer.events[0] for answer in answers]
    assert starts[0]["models"] == ["m"]
    assert starts[0]["request"]["text"] == "hi"
    assert [start["stream_id"] for start in starts] == [answer.headers["X-Stream-Id"] for answer in answers]
    assert starts[0]["stream_id"] != starts[1]["stream_id"]
    assert len(starts[0]["stream_id"]) >= 22  # base64: 6 bits each


@asynchronous
async def test_the_result_is_what_a_plain_answer_gives(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c; usage:3,4; stop:max_tokens")}) as server:
        plain = (await server.post("/api/models/m", HI)).json
        result = check_stream((await server.post("/api/stream/m", HI)).events)["m"]
    assert result.keys() == plain.keys() | {"type", "seq", "model"}
    assert result["response"] | {"id": ""} == plain["response"] | {"id": ""}
    assert result["request"] == plain["request"]
    assert result["metadata"].keys() == plain["metadata"].keys()


@pytest.mark.parametrize("accept", ["", "*/*", "text/*", "text/event-stream", "text/html, */*;q=0.1"])
@asynchronous
async def test_sse_is_the_default(tmp_path: Path, accept: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        answer = await server.post("/api/stream/m", HI, Accept=accept)
        assert answer.headers["Content-Type"].partition(";")[0] == "text/event-stream"
        check_stream(answer.events)


@asynchronous
async def test_every_format_tells_the_same_events(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:ünï \U0001f525 text")}) as server:
        sse = (await server.post("/api/stream/m", HI)).events
        lines = (await server.post("/api/stream/m", HI, Accept="application/x-ndjson")).lines
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
@asynchronous
async def test_what_can_hold_no_stream_is_406(tmp_path: Path, accept: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        check_error(await server.post("/api/stream/m", HI, Accept=accept), 406, "not_acceptable", "text/event-stream")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\u2028", "\n\ndata: x\n\n"])
@asynchronous
async def test_no_text_can_break_the_framing(tmp_path: Path, newline: str) -> None:
    said = f"a{newline}b"
    async with upstream_says(tmp_path, stream_of([said, newline, "%d %s"])) as (server, _):
        answer = await server.post("/api/stream/m", HI)
        assert text_of(check_stream(answer.events)["m"]) == f"{said}{newline}%d %s"


GOOD = stream_bytes(["Hello", " wörld", "\U0001f525"])


@pytest.mark.parametrize("block", [1, 2, 7, 100])
@asynchronous
async def test_an_upstream_may_cut_its_bytes_anywhere(tmp_path: Path, block: int) -> None:
    answer = raw(GOOD, headers={"Content-Type": "text/event-stream"}, block=block)
    async with upstream_says(tmp_path, answer) as (server, _):
        outcomes = check_stream((await server.post("/api/stream/m", HI)).events)
        assert text_of(outcomes["m"]) == "Hello wörld\U0001f525"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (refusal(400, "too long"), 400, "invalid_request"),
        (refusal(429), 429, "rate_limited"),
        (refusal(500, "broken"), 500, "model_error"),
        (refusal(503), 503, "unavailable"),
        (stream_of([ERROR_EVENT]), 500, "model_error"),
        (stream_of([CUT]), 500, "model_error"),
        (raw([b"garbage\n\n"], headers={"Content-Type": "text/event-stream"}), 500, "model_error"),
        (hang(), 503, "unavailable"),
    ],
)
@asynchronous
async def test_what_fails_before_the_first_token_is_an_answer_with_its_own_status(
    tmp_path: Path, answer: Answer, status: int, code: str
) -> None:
    async with upstream_says(tmp_path, answer, timeouts=PATIENT) as (server, _):
        for accept in ["text/event-stream", "application/x-ndjson", "text/plain"]:
            refused = await server.post("/api/stream/m", HI, Accept=accept)
            check_error(refused, status, code)
            assert "X-Stream-Id" not in refused.headers


LATE = [
    stream_of(["Hello", ERROR_EVENT]),
    stream_of(["Hello", CUT]),
    stream_of(["Hello", b"data: {garbage\n\n"]),
    stream_of(["Hello"], finish=None, done=False),
    stream_of(["Hello", asyncio.Event()]),
    raw(GOOD, headers={"Content-Type": "text/event-stream"}, cut_at=len(GOOD[0]) + 20),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("answer", LATE)
@asynchronous
async def test_what_fails_later_is_an_event_and_the_stream_ends_with_complete(tmp_path: Path, answer: Answer) -> None:
    async with upstream_says(tmp_path, answer, timeouts=PATIENT) as (server, _):
        events = (await server.post("/api/stream/m", HI)).events
    failure = check_stream(events)["m"]
    assert [event["type"] for event in events] == ["start", "chunk", "error", "complete"]
    assert failure.keys() == {"type", "seq", "model", "error", "code"}
    assert failure["code"] in ("model_error", "unavailable")


@asynchronous
async def test_text_plain_is_cut_where_the_model_fails_and_whole_where_it_does_not(tmp_path: Path) -> None:
    models = {"good": says("say:Hello there"), "bad": says("say:Hello there; fail:model_error")}
    async with serving(tmp_path, models=models) as server:
        assert (await server.post("/api/stream/good", HI, Accept="text/plain")).content == b"Hello there"
        with pytest.raises(aiohttp.ClientPayloadError):
            await server.post("/api/stream/bad", HI, Accept="text/plain")
        async with connected(server) as line:
            with pytest.raises(Cut):
                await line.ask(body_of(), "/api/stream/bad", Accept="text/plain")
        await server.ended()


@asynchronous
async def test_our_own_fault_in_mid_stream_cuts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> bytes:
        raise RuntimeError("a fault of our own")

    gate = asyncio.Event()
    async with (
        upstream_says(tmp_path, stream_of(["Hello", gate])) as (server, _),
        server.live("/api/stream/m", HI) as live,
    ):
        assert [(await live.next())["type"] for _ in range(2)] == ["start", "chunk"]
        monkeypatch.setattr(SseEncoder, "encode", explode)
        gate.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await live.rest()


@asynchronous
async def test_after_the_heartbeat_time_the_stream_begins_whatever_comes(tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = raw([gate, b"no"], status=429)
    async with upstream_says(tmp_path, answer, "--heartbeat", "0.02") as (server, _):
        async with server.live("/api/stream/m", HI) as live:
            assert live.response.status == 200
            first = [await live.next() for _ in range(3)]
            assert [event["type"] for event in first] == ["start", "heartbeat", "heartbeat"]
            assert first[1] == {"type": "heartbeat"}
            gate.set()
            failure = check_stream(first + await live.rest())["m"]
        assert failure["code"] == "rate_limited"
        assert failure["retry_after"] >= 1


@asynchronous
async def test_a_silence_between_tokens_is_bridged_by_heartbeats(tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = stream_of(["Hello", gate, "!"])
    async with (
        upstream_says(tmp_path, answer, "--heartbeat", "0.02") as (server, _),
        server.live("/api/stream/m", HI) as live,
    ):
        events = [await live.next() for _ in range(4)]
        assert [event["type"] for event in events] == ["start", "chunk", "heartbeat", "heartbeat"]
        gate.set()
        assert text_of(check_stream(events + await live.rest())["m"]) == "Hello!"


@asynchronous
async def test_text_plain_has_no_heartbeat_in_its_text(tmp_path: Path) -> None:
    async with serving(tmp_path, "--heartbeat", "0.02", models={"m": says("pause:0.1; say:Hello")}) as server:
        assert (await server.post("/api/stream/m", HI, Accept="text/plain")).content == b"Hello"


@pytest.mark.parametrize("script", ["stop:end_turn", "think:hm", "say:Hello; unstreamed"])
@asynchronous
async def test_an_answer_without_text_or_in_one_piece_is_a_whole_stream(tmp_path: Path, script: str) -> None:
    async with serving(tmp_path, models={"m": says(script)}) as server:
        outcomes = check_stream((await server.post("/api/stream/m", HI)).events)
        assert outcomes["m"]["type"] == "result"


@asynchronous
async def test_a_model_that_cannot_stream_is_a_stream_of_one_chunk(tmp_path: Path) -> None:
    async with upstream_says(tmp_path, whole("Hello world"), capabilities=["text"]) as (server, _):
        events = (await server.post("/api/stream/m", HI)).events
        assert [event["type"] for event in events] == ["start", "chunk", "result", "complete"]
        check_stream(events)


@asynchronous
async def test_an_unknown_model_is_404_and_one_that_is_not_deployed_503(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"later": says("fail:model_not_deployed")}) as server:
        check_error(await server.post("/api/stream/nobody", HI), 404, "unknown_model")
        check_error(await server.post("/api/stream/later", HI), 503, "model_not_deployed")


@asynchronous
async def test_200_streams_at_once_come_whole_and_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        asked = [" ".join(f"{n}-{word}" for word in range(50)) for n in range(200)]
        answers = await asyncio.gather(*(server.post("/api/stream/m", {"text": text}) for text in asked))
        for text, answer in zip(asked, answers, strict=True):
            assert text_of(check_stream(answer.events)["m"]) == text
        await server.ended()
        assert server.scripted.replies == 0


@asynchronous
async def test_a_stream_that_is_stopped_says_so_and_completes(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with upstream_says(tmp_path, stream_of(["Hello", gate])) as (server, up):
        async with server.live("/api/stream/m", HI) as live:
            events = [await live.next(), await live.next()]
            path = f"/api/streams/{live.response.headers['X-Stream-Id']}"
            assert (await server.request("DELETE", path)).status == 204
            assert check_stream(events + await live.rest())["m"]["code"] == "cancelled"
        await up.idle()
        assert up.cancelled == 1
