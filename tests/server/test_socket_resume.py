"""`resume` on /ws: streams that are read again, by several, from any event on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.aio import asynchronous, comes_true
from tests.server.checks import check_stream, text_of
from tests.serving import asks, says, serving
from tests.sockets import JSON, MSGPACK, Talk, talking
from tests.upstream import Upstream, stream_of

RESUMABLE = {"op": "infer", "id": "a", "model": "m", "text": "hi", "resumable": True}


async def take(talk: Talk, id: str, count: int) -> list[dict[str, Any]]:
    return [await talk.next(id) for _ in range(count)]


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@pytest.mark.parametrize("count", range(1, 7))
@asynchronous
async def test_a_stream_cut_at_any_event_and_resumed_is_the_stream_of_an_uncut_reader(
    tmp_path: Path, count: int, protocol: str
) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of([piece for n in range(4) for piece in (f"word{n} ", gates[n])])
        async with talking(server) as uncut:
            async with talking(server, protocols=(protocol,)) as first:
                await first.say(**RESUMABLE)
                mine = await take(first, "a", 2)
                await uncut.say(op="resume", id="u", stream_id=mine[0]["stream_id"])
                for gate in gates[: count - 2 if count > 2 else 0]:
                    gate.set()
                mine = (mine + await take(first, "a", count - len(mine)))[:count] if count > 2 else mine[:count]
            for gate in gates:
                gate.set()
            async with talking(server, protocols=(protocol,)) as second:
                await second.say(op="resume", id="b", stream_id=mine[0]["stream_id"], after=mine[-1]["seq"])
                mine += await second.whole("b")
            assert mine == await uncut.whole("u")
            assert text_of(check_stream(mine)["m"]) == "word0 word1 word2 word3 "


@asynchronous
async def test_a_finished_stream_can_be_resumed_after_each_of_its_events(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c d e")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        events = await talk.whole("a")
        for after in range(-1, len(events) - 1):
            await talk.say(op="resume", id="b", stream_id=events[0]["stream_id"], after=after)
            assert await talk.whole("b") == events[after + 1 :]


@asynchronous
async def test_beyond_what_was_told_is_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:Hello; hang")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        start, chunk = await talk.until("a", "chunk")
        for after in (2, 3, 10**30):
            await talk.say(op="resume", id="b", stream_id=start["stream_id"], after=after)
            told = await talk.next("b")
            assert (told["code"], "2 events" in told["error"]) == ("invalid_request", True)
        await talk.say(op="resume", id="b", stream_id=start["stream_id"], after=0)
        assert await talk.next("b") == chunk


@asynchronous
async def test_the_first_that_asked_may_read_its_stream_twice_on_one_socket(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        start = await talk.next("a")
        for id in ("b", "c"):
            await talk.say(op="resume", id=id, stream_id=start["stream_id"])
        assert [start, *await talk.whole("a")] == await talk.whole("b") == await talk.whole("c")


@asynchronous
async def test_a_socket_reads_on_what_http_began_and_the_other_way_round(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server, talking(server) as talk:
        up.answer = stream_of(["Hello", gate, " world"])
        async with server.live("/api/stream/m", {"text": "hi", "resumable": True}) as live:
            events = [await live.next(), await live.next()]
        await talk.say(op="resume", id="a", stream_id=events[0]["stream_id"], after=1)
        await talk.say(**RESUMABLE | {"id": "b"})
        other = await talk.until("b", "chunk")
        gate.set()
        assert text_of(check_stream(events + await talk.whole("a"))["m"]) == "Hello world"
        again = await server.get(f"/api/streams/{other[0]['stream_id']}?after=0")
        assert again.events == other[1:] + await talk.whole("b")


@asynchronous
async def test_a_stream_whose_other_readers_stay_goes_on_when_the_first_leaves(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server, talking(server) as other:
        up.answer = stream_of(["Hello", gate, " world"])
        async with talking(server) as first:
            await first.say(op="infer", id="a", model="m", text="hi")
            start, _ = await first.until("a", "chunk")
            await other.say(op="resume", id="b", stream_id=start["stream_id"])
            events = await other.until("b", "chunk")
        await comes_true(lambda: len(server.services.sockets) == 1)
        gate.set()
        assert text_of(check_stream(events + await other.whole("b"))["m"]) == "Hello world"
        assert up.cancelled == 0
