"""GET and DELETE /api/streams/{stream_id}: a stream that is read again, and one that is stopped."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.async_tests import async_test
from tests.running_server import LiveStream, RunningServer, running_server, scripted_model, upstream_model
from tests.server.checks import check_error, check_stream, text_of
from tests.upstream import Piece, Upstream, stream_response

HI = {"text": "hi"}
RESUMABLE = {"text": "hi", "resumable": True}
WORDS = ["one ", "two ", "three ", "four "]


def open_reader(server: RunningServer, stream_id: str, **headers: str) -> Any:
    return server.http.get(f"{server.url}/api/streams/{stream_id}", headers=headers)


@pytest.mark.parametrize("count", range(1, 8))
@async_test
async def test_streams_resume_after_any_event_yields_same_stream(tmp_path: Path, count: int) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    pieces: list[Piece] = [WORDS[0], gates[0], WORDS[1], gates[1], WORDS[2], gates[2], WORDS[3]]
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(pieces)
        async with server.open_stream("/api/stream/m", RESUMABLE) as live:
            mine = [await live.next_event()]
            stream_id = mine[0]["stream_id"]
            async with open_reader(server, stream_id) as response:
                for number in range(1, count):
                    if 2 <= number <= 4:
                        gates[number - 2].set()
                    mine.append(await live.next_event())
                live.response.close()
                for gate in gates:
                    gate.set()
                async with open_reader(server, stream_id, **{"Last-Event-ID": str(mine[-1]["seq"])}) as second:
                    mine += await LiveStream(second).remaining_events()
                assert mine == await LiveStream(response).remaining_events()
        assert text_of(check_stream(mine)["m"]) == "".join(WORDS)
        assert up.cancelled == 0


@async_test
async def test_streams_three_readers_get_same_events(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("pause:0.01; chunks:20000")}) as server,
        server.open_stream("/api/stream/m", RESUMABLE) as quick,
    ):
        first = await quick.next_event()
        stream_id = first["stream_id"]
        async with open_reader(server, stream_id) as slow, open_reader(server, stream_id) as late:
            events = [first, *await quick.remaining_events()]
            check_stream(events)
            one_by_one = LiveStream(slow)
            received = [await one_by_one.next_event() for _ in range(1000)]
            cut = received[-1]["seq"]
            slow.close()
            received += (await server.get(f"/api/streams/{stream_id}?after={cut}")).events
            assert received == events
            assert await LiveStream(late).remaining_events() == events


@async_test
async def test_streams_get_starts_at_beginning_or_after(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        path = f"/api/streams/{events[0]['stream_id']}"
        assert (await server.get(path)).events == events
        for seq in range(len(events)):
            assert (await server.get(f"{path}?after={seq}")).events == events[seq + 1 :]
            assert (await server.get(path, **{"Last-Event-ID": str(seq)})).events == events[seq + 1 :]
        both = await server.get(f"{path}?after=3", **{"Last-Event-ID": "0"})
        assert both.events == events[4:]


@pytest.mark.parametrize("place", ["6", "99", "-1", "", "x", "1.0", "٣", "1" * 400, "1e0", "+1"])
@async_test
async def test_streams_invalid_position_is_400(tmp_path: Path, place: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        assert len(events) == 6
        path = f"/api/streams/{events[0]['stream_id']}"
        answer = await server.request("GET", path, params={"after": place})
        check_error(answer, 400, "invalid_request", "after")
        if place.isascii() and place:
            answer = await server.get(path, **{"Last-Event-ID": place})
            check_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("stream_id", ["nobody", "x" * 5000, "%00", "ünï", "..%2f..%2fetc"])
@async_test
async def test_streams_unknown_id_is_404(tmp_path: Path, stream_id: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for method in ("GET", "DELETE"):
            check_error(await server.request(method, f"/api/streams/{stream_id}"), 404, "unknown_stream")


@async_test
async def test_streams_are_readable_only_by_their_api_key(tmp_path: Path) -> None:
    keys = {"FORGELINE_API_KEYS": "mine,yours"}
    async with (
        running_server(tmp_path, environ=keys, models={"m": scripted_model("say:Hello; hang")}) as server,
        server.open_stream("/api/stream/m", HI, **{"X-API-Key": "mine"}) as live,
    ):
        path = f"/api/streams/{(await live.next_event())['stream_id']}"
        for method in ("GET", "DELETE"):
            foreign = await server.request(method, path, headers={"X-API-Key": "yours"})
            unknown = await server.request(method, path + "x", headers={"X-API-Key": "yours"})
            received = check_error(foreign, 404, "unknown_stream")
            assert received["error"] == check_error(unknown, 404, "unknown_stream")["error"]
            check_error(await server.request(method, path), 401, "unauthorized")
        assert server.services.streams.running_count == 1
        assert (await server.request("DELETE", path, headers={"Authorization": "Bearer mine"})).status == 204


@async_test
async def test_streams_resume_in_every_format(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        path = f"/api/streams/{events[0]['stream_id']}?after=1"
        packed = await server.get(path, Accept="application/vnd.forgeline.events+msgpack")
        assert list(msgpack.Unpacker(io.BytesIO(packed.content))) == events[2:]
        assert (await server.get(path, Accept="application/x-ndjson")).ndjson_events == events[2:]
        assert (await server.get(path, Accept="text/plain")).content == b"b c"
        assert (await server.get(path, Accept="*/*")).headers["Content-Type"] == "text/event-stream"
        check_error(await server.get(path, Accept="application/json"), 406, "not_acceptable")


@async_test
async def test_streams_of_several_models_resume_but_not_as_text(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, models={"a": scripted_model("say:1 2 3"), "b": scripted_model("say:4 5 6")}
    ) as server:
        body = {"models": ["a", "b"], **RESUMABLE}
        events = (await server.post("/api/multi-inference", body, Accept="text/event-stream")).events
        path = f"/api/streams/{events[0]['stream_id']}"
        for seq in range(len(events)):
            assert (await server.get(f"{path}?after={seq}")).events == events[seq + 1 :]
        check_error(await server.get(path, Accept="text/plain"), 406, "not_acceptable")


@async_test
async def test_streams_are_retained_then_evicted(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--stream-keep", "0.2", models={"m": scripted_model("say:a b c")}) as server:
        events = (await server.post("/api/stream/m", HI)).events
        path = f"/api/streams/{events[0]['stream_id']}"
        assert (await server.get(path)).events == events
        while (answer := await server.get(path)).status == 200:
            pass
        check_error(answer, 404, "unknown_stream")


@async_test
async def test_streams_plain_answer_is_not_retained(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        await server.post("/api/models/m", HI)
        await server.post("/api/multi-inference", {"models": ["m"], **HI})
        await server.wait_until_idle()
        assert not server.services.streams._streams


@async_test
async def test_streams_without_resumable_cancel_on_last_disconnect(tmp_path: Path) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(["Hello", asyncio.Event()])
        async with server.open_stream("/api/stream/m", HI) as live:
            events = [await live.next_event(), await live.next_event()]
            path = f"/api/streams/{events[0]['stream_id']}"
            async with open_reader(server, events[0]["stream_id"]) as other:
                live.response.close()
                assert await LiveStream(other).next_event() == events[0]
                assert up.in_flight == 1
        await up.wait_until_idle()
        await server.wait_until_idle()
        assert up.cancelled == 1
        assert check_stream((await server.get(path)).events)["m"]["code"] == "cancelled"


@async_test
async def test_streams_resumable_cancel_after_grace(tmp_path: Path) -> None:
    async with (
        Upstream() as up,
        running_server(tmp_path, "--grace", "0.2", models={"m": upstream_model(up.base_url)}) as server,
    ):
        up.response = stream_response(["Hello", asyncio.Event()])
        for _ in range(2):  # a reader that comes back and leaves again gets the whole grace time again
            async with server.open_stream("/api/stream/m", RESUMABLE) as live:
                events = [await live.next_event(), await live.next_event()]
            async with open_reader(server, events[0]["stream_id"]) as again:
                assert await LiveStream(again).next_event() == events[0]
                assert up.in_flight == 1
            await up.wait_until_idle()
        assert up.cancelled == 2
        await server.wait_until_idle()


@async_test
async def test_streams_resumable_ending_within_grace_is_whole(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(["Hello", gate, " world"])
        async with server.open_stream("/api/stream/m", RESUMABLE) as live:
            start = await live.next_event()
        gate.set()
        await server.wait_until_idle()
        events = (await server.get(f"/api/streams/{start['stream_id']}")).events
        assert text_of(check_stream(events)["m"]) == "Hello world"


@async_test
async def test_streams_delete_ends_stream_for_all_readers(tmp_path: Path) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(["Hello", asyncio.Event()])
        async with server.open_stream("/api/stream/m", RESUMABLE) as live:
            events = [await live.next_event(), await live.next_event()]
            path = f"/api/streams/{events[0]['stream_id']}"
            async with open_reader(server, events[0]["stream_id"]) as other:
                answer = await server.request("DELETE", path)
                assert (answer.status, answer.content) == (204, b"")
                events += await live.remaining_events()
                assert check_stream(events)["m"]["code"] == "cancelled"
                assert await LiveStream(other).remaining_events() == events
        await up.wait_until_idle()
        assert (await server.request("DELETE", path)).status == 204
        assert (await server.get(path)).events == events


@async_test
async def test_streams_resumed_heartbeats_are_not_stored(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as up,
        running_server(tmp_path, "--heartbeat", "0.02", models={"m": upstream_model(up.base_url)}) as server,
    ):
        up.response = stream_response(["Hello", gate, "!"])
        async with server.open_stream("/api/stream/m", RESUMABLE) as live:
            start = await live.next_event()
            async with open_reader(server, start["stream_id"], **{"Last-Event-ID": "1"}) as again:
                resumed = LiveStream(again)
                assert [await resumed.next_event() for _ in range(2)] == [{"type": "heartbeat"}] * 2
                gate.set()
                received = [event for event in await resumed.remaining_events() if event["type"] != "heartbeat"]
        whole = (await server.get(f"/api/streams/{start['stream_id']}")).events
        assert whole[2:] == received
        assert all(event["type"] != "heartbeat" for event in whole)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "HEAD"])
@async_test
async def test_streams_other_methods_are_405(tmp_path: Path, method: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        answer = await server.request(method, "/api/streams/x")
        assert answer.status == 405
