"""/ws: one socket that carries many streams."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.aio import asynchronous
from tests.server.checks import check_stream, text_of
from tests.serving import asks, says, serving
from tests.sockets import JSON, MSGPACK, talking
from tests.upstream import Upstream, stream_of

PROTOCOLS = pytest.mark.parametrize("protocol", [JSON, MSGPACK])
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


@PROTOCOLS
@asynchronous
async def test_an_infer_is_a_whole_stream_under_the_clients_own_id(tmp_path: Path, protocol: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server, protocols=(protocol,)) as talk:
        await talk.say(op="infer", id="a", model="m", text="Hello ünï \U0001f525 world")
        assert text_of(check_stream(await talk.whole("a"))["m"]) == "Hello ünï \U0001f525 world"
        await server.ended()


@asynchronous
async def test_the_events_are_those_of_http(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b c; usage:3,4")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        told = await talk.whole("a")
        sse = (await server.post("/api/stream/m", {"text": "hi"})).events
        assert [event.keys() for event in told] == [event.keys() for event in sse]
        assert [(event["type"], event["seq"]) for event in told] == [(event["type"], event["seq"]) for event in sse]
        again = (await server.get(f"/api/streams/{told[0]['stream_id']}")).events
        assert again == told


@asynchronous
async def test_start_comes_at_once_before_the_model_has_said_anything(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("hang")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        assert (await talk.next("a"))["type"] == "start"


@PROTOCOLS
@asynchronous
async def test_several_models_answer_in_one_stream(tmp_path: Path, protocol: str) -> None:
    models = {"good": says("say:a b c"), "bad": says("fail:model_error")}
    async with serving(tmp_path, models=models) as server, talking(server, protocols=(protocol,)) as talk:
        await talk.say(op="infer", id="a", models=["good", "bad"], text="hi")
        outcomes = check_stream(await talk.whole("a"))
        assert text_of(outcomes["good"]) == "a b c"
        assert outcomes["bad"]["code"] == "model_error"


@asynchronous
async def test_frames_are_base64_in_json_and_bytes_in_messagepack(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        async with talking(server, protocols=(MSGPACK,)) as talk:
            await talk.say(op="infer", id=1, model="m", text="hi", frames=[PNG])
            start = (await talk.whole(1))[0]
        assert start["request"]["frames_count"] == 1
        async with talking(server) as talk:
            await talk.say(op="infer", id=1, model="m", text="hi", frames=["no base64!"])
            assert (await talk.until(1, "error"))[-1]["code"] == "invalid_request"


@asynchronous
async def test_ids_are_strings_or_integers_and_each_is_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        ids = ["1", 1, "", -5, 10**30, 'quo"te %d \n', "é" * 200]
        for number, id in enumerate(ids):
            await talk.say(op="infer", id=id, model="m", text=f"text {number}")
        for number, id in enumerate(ids):
            assert text_of(check_stream(await talk.whole(id))["m"]) == f"text {number}"


@asynchronous
async def test_fifty_streams_on_one_socket_come_whole_and_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        texts = [" ".join(f"{n}-{word}" for word in range(100)) for n in range(50)]
        for number, text in enumerate(texts):
            await talk.say(op="infer", id=number, model="m", text=text)
        for number, text in enumerate(texts):
            assert text_of(check_stream(await talk.whole(number))["m"]) == text
        await server.ended()


@asynchronous
async def test_a_thousand_at_once_are_bounded_and_every_one_is_answered(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", gate, " world"])
        async with talking(server) as talk:
            for number in range(1000):
                await talk.say(op="infer", id=number, model="m", text="hi")
            first = [await talk.next(number) for number in range(1000)]
            begun = [number for number in range(1000) if first[number]["type"] == "start"]
            refused = [told for told in first if told["type"] == "error"]
            assert len(begun) == 256
            assert len(refused) == 744
            assert {(told["code"], told["retry_after"]) for told in refused} == {("rate_limited", 1.0)}
            assert server.services.streams.running == 256
            gate.set()
            for number in begun:
                events = [first[number], *await talk.whole(number)]
                assert text_of(check_stream(events)["m"]) == "Hello world"
            await talk.say(op="infer", id="again", model="m", text="hi")
            check_stream(await talk.whole("again"))
        await server.ended()


@asynchronous
async def test_the_limit_of_all_streams_is_told_under_the_id(tmp_path: Path) -> None:
    async with serving(tmp_path, "--max-streams", "1", models={"m": says("hang")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        await talk.say(op="infer", id="b", model="m", text="hi")
        assert (await talk.next("a"))["type"] == "start"
        assert (await talk.next("b"))["code"] == "rate_limited"


@asynchronous
async def test_a_socket_that_closes_ends_what_it_began(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with talking(server) as talk:
            for number in range(20):
                await talk.say(op="infer", id=number, model="m", text="hi")
            for number in range(20):
                await talk.until(number, "chunk")
        await up.idle()
        await server.ended()
        assert up.cancelled == 20
        assert not server.services.sockets


@asynchronous
async def test_a_socket_that_closes_right_after_its_infer_ends_it_too(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("hang")}) as server:
        async with talking(server) as talk:
            await talk.say(op="infer", id="a", model="m", text="hi")
        await server.ended()
        assert server.scripted.calls == server.scripted.cancelled


@asynchronous
async def test_a_stream_of_its_own_address_carries_one_thing_after_the_other_without_id(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server, "/ws/stream/m") as talk:
        for text in ("one", "two"):
            await talk.say(text=text)
            events = await talk.whole()
            assert text_of(check_stream(events)["m"]) == text
            assert all("id" not in event for event in events if event["type"] != "result")


@asynchronous
async def test_a_stream_of_its_own_address_says_what_is_wrong_and_stays_open(tmp_path: Path) -> None:
    models = {"m": says("say:Hello; hang")}
    async with serving(tmp_path, models=models) as server:
        async with talking(server, "/ws/stream/nobody") as talk:
            for _ in range(2):
                await talk.say(text="hi")
                assert (await talk.next())["code"] == "unknown_model"
        async with talking(server, "/ws/stream/m") as talk:
            for wrong in ({}, {"text": 3}, {"text": "hi", "op": "infer"}, {"text": "hi", "models": ["m"]}):
                await talk.say(**wrong)
                assert (await talk.next())["code"] == "invalid_request"
            await talk.say(text="hi")
            await talk.until(None, "chunk")
            await talk.say(text="hi")
            told = await talk.next()
            assert (told["code"], told["error"]) == ("invalid_request", "One at a time.")
