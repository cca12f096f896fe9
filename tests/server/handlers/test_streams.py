"""GET and DELETE /api/streams/{stream_id}: a stream that is read again, and one that is stopped."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.aio import asynchronous
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import Live, Server, asks, says, serving
from tests.upstream import Piece, Upstream, stream_of

HI = {"text": "hi"}
RESUMABLE = {"text": "hi", "resumable": True}
WORDS = ["one ", "two ", "three ", "four "]


def reading(server: Server, stream_id: str, **headers: str) -> Any:
    return server.http.get(f"{server.url}/api/streams/{stream_id}", headers=headers)


@pytest.mark.parametrize("count", range(1, 8))
@asynchronous
async def test_a_stream_cut_at_any_event_and_resumed_is_the_stream_of_an_uncut_reader(
    tmp_path: Path, count: int
) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    pieces: list[Piece] = [WORDS[0], gates[0], WORDS[1], gates[1], WORDS[2], gates[2], WORDS[3]]
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(pieces)
        async with server.live("/api/stream/m", RESUMABLE) as live:
            mine = [await live.next()]
            stream_id = mine[0]["stream_id"]
            async with reading(server, stream_id) as response:
                for number in range(1, count):
                    if 2 <= number <= 4:
                        gates[number - 2].set()
                    mine.append(await live.next())
                live.response.close()
                for gate in gates:
                    gate.set()
                async with reading(server, stream_id, **{"Last-Event-ID": str(mine[-1]["seq"])}) as second:
                    mine += await Live(second).rest()
                assert mine == await Live(response).rest()
        assert text_of(check_stream(mine)["m"]) == "".join(WORDS)
        assert up.cancelled == 0


@asynchronous
async def test_three_readers_at_different_speeds_get_the_same_events(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, models={"m": says("pause:0.01; chunks:20000")}) as server,
        server.live("/api/stream/m", RESUMABLE) as quick,
    ):
        first = await quick.next()
        stream_id = first["stream_id"]
        async with reading(server, stream_id) as slow, reading(server, stream_id) as late:
            events = [first, *await quick.rest()]
            check_stream(events)
            one_by_one = Live(slow)
            told = [await one_by_one.next() for _ in range(1000)]
            cut = told[-1]["seq"]
            slow.close()
            told += (await server.get(f"/api/streams/{stream_id}?after={cut}")).events
            assert told == events
            assert await Live(late).rest() == events


@asynchronous
async def test_without_a_place_it_is_read_from_the_start_and_after_counts_like_last_event_id(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        path = f"/api/streams/{events[0]['stream_id']}"
        assert (await server.get(path)).events == events
        for seq in range(len(events)):
            assert (await server.get(f"{path}?after={seq}")).events == events[seq + 1 :]
            assert (await server.get(path, **{"Last-Event-ID": str(seq)})).events == events[seq + 1 :]
        both = await server.get(f"{path}?after=3", **{"Last-Event-ID": "0"})
        assert both.events == events[4:]


@pytest.mark.parametrize("place", ["6", "99", "-1", "", "x", "1.0", "٣", "1" * 400, "1e0", "+1"])
@asynchronous
async def test_a_place_that_is_none_or_beyond_what_was_told_is_400(tmp_path: Path, place: str) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        assert len(events) == 6
        path = f"/api/streams/{events[0]['stream_id']}"
        answer = await server.request("GET", path, params={"after": place})
        check_error(answer, 400, "invalid_request", "after")
        if place.isascii() and place:
            answer = await server.get(path, **{"Last-Event-ID": place})
            check_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("stream_id", ["nobody", "x" * 5000, "%00", "ünï", "..%2f..%2fetc"])
@asynchronous
async def test_an_unknown_id_is_404(tmp_path: Path, stream_id: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for method in ("GET", "DELETE"):
            check_error(await server.request(method, f"/api/streams/{stream_id}"), 404, "unknown_stream")


@asynchronous
async def test_an_id_answers_only_to_the_key_that_made_it(tmp_path: Path) -> None:
    keys = {"FORGELINE_API_KEYS": "mine,yours"}
    async with (
        serving(tmp_path, environ=keys, models={"m": says("say:Hello; hang")}) as server,
        server.live("/api/stream/m", HI, **{"X-API-Key": "mine"}) as live,
    ):
        path = f"/api/streams/{(await live.next())['stream_id']}"
        for method in ("GET", "DELETE"):
            foreign = await server.request(method, path, headers={"X-API-Key": "yours"})
            unknown = await server.request(method, path + "x", headers={"X-API-Key": "yours"})
            told = check_error(foreign, 404, "unknown_stream")
            assert told["error"] == check_error(unknown, 404, "unknown_stream")["error"]
            check_error(await server.request(method, path), 401, "unauthorized")
        assert server.services.streams.running == 1
        assert (await server.request("DELETE", path, headers={"Authorization": "Bearer mine"})).status == 204


@asynchronous
async def test_every_format_resumes_and_sse_is_the_default(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        path = f"/api/streams/{events[0]['stream_id']}?after=1"
        packed = await server.get(path, Accept="application/vnd.forgeline.events+msgpack")
        assert list(msgpack.Unpacker(io.BytesIO(packed.content))) == events[2:]
        assert (await server.get(path, Accept="application/x-ndjson")).lines == events[2:]
        assert (await server.get(path, Accept="text/plain")).content == b"b c"
        assert (await server.get(path, Accept="*/*")).headers["Content-Type"] == "text/event-stream"
        check_error(await server.get(path, Accept="application/json"), 406, "not_acceptable")


@asynchronous
async def test_a_stream_of_several_models_resumes_but_not_as_bare_text(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"a": says("say:1 2 3"), "b": says("say:4 5 6")}) as server:
        body = {"models": ["a", "b"], **RESUMABLE}
        events = (await server.post("/api/multi-inference", body, Accept="text/event-stream")).events
        path = f"/api/streams/{events[0]['stream_id']}"
        for seq in range(len(events)):
            assert (await server.get(f"{path}?after={seq}")).events == events[seq + 1 :]
        check_error(await server.get(path, Accept="text/plain"), 406, "not_acceptable")


@asynchronous
async def test_a_stream_is_kept_after_its_end_and_then_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, "--stream-keep", "0.2", models={"m": says("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        path = f"/api/streams/{events[0]['stream_id']}"
        assert (await server.get(path)).events == events
        while (answer := await server.get(path)).status == 200:
            pass
        check_error(answer, 404, "unknown_stream")


@asynchronous
async def test_a_plain_answer_leaves_no_stream(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        await server.post("/api/models/m", HI)
        await server.post("/api/multi-inference", {"models": ["m"], **HI})
        await server.ended()
        assert not server.services.streams._streams


@asynchronous
async def test_without_resumable_the_model_is_cancelled_when_the_last_reader_leaves(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with server.live("/api/stream/m", HI) as live:
            events = [await live.next(), await live.next()]
            path = f"/api/streams/{events[0]['stream_id']}"
            async with reading(server, events[0]["stream_id"]) as other:
                live.response.close()
                assert await Live(other).next() == events[0]
                assert up.answering == 1
        await up.idle()
        await server.ended()
        assert up.cancelled == 1
        assert check_stream((await server.get(path)).events)["m"]["code"] == "cancelled"


@asynchronous
async def test_resumable_goes_on_for_the_grace_time_and_then_is_cancelled(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, "--grace", "0.2", models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", asyncio.Event()])
        for _ in range(2):  # a reader that comes back and leaves again gets the whole grace time again
            async with server.live("/api/stream/m", RESUMABLE) as live:
                events = [await live.next(), await live.next()]
            async with reading(server, events[0]["stream_id"]) as again:
                assert await Live(again).next() == events[0]
                assert up.answering == 1
            await up.idle()
        assert up.cancelled == 2
        await server.ended()


@asynchronous
async def test_a_resumable_stream_that_ends_in_its_grace_time_is_whole(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", gate, " world"])
        async with server.live("/api/stream/m", RESUMABLE) as live:
            start = await live.next()
        gate.set()
        await server.ended()
        events = (await server.get(f"/api/streams/{start['stream_id']}")).events
        assert text_of(check_stream(events)["m"]) == "Hello world"


@asynchronous
async def test_delete_ends_a_stream_for_all_its_readers_and_says_204_again(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with server.live("/api/stream/m", RESUMABLE) as live:
            events = [await live.next(), await live.next()]
            path = f"/api/streams/{events[0]['stream_id']}"
            async with reading(server, events[0]["stream_id"]) as other:
                answer = await server.request("DELETE", path)
                assert (answer.status, answer.content) == (204, b"")
                events += await live.rest()
                assert check_stream(events)["m"]["code"] == "cancelled"
                assert await Live(other).rest() == events
        await up.idle()
        assert (await server.request("DELETE", path)).status == 204
        assert (await server.get(path)).events == events


@asynchronous
async def test_heartbeats_bridge_the_silence_of_a_resumed_stream_and_are_not_stored(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, "--heartbeat", "0.02", models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", gate, "!"])
        async with server.live("/api/stream/m", RESUMABLE) as live:
            start = await live.next()
            async with reading(server, start["stream_id"], **{"Last-Event-ID": "1"}) as again:
                resumed = Live(again)
                assert [await resumed.next() for _ in range(2)] == [{"type": "heartbeat"}] * 2
                gate.set()
                told = [event for event in await resumed.rest() if event["type"] != "heartbeat"]
        whole = (await server.get(f"/api/streams/{start['stream_id']}")).events
        assert whole[2:] == told
        assert all(event["type"] != "heartbeat" for event in whole)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "HEAD"])
@asynchronous
async def test_other_methods_are_405(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        answer = await server.request(method, "/api/streams/x")
        assert answer.status == 405
