"""The ops of /ws: cancel, and messages that are wrong in every way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.aio import asynchronous, comes_true
from tests.server.checks import LEAKS, check_stream, text_of
from tests.serving import asks, says, serving
from tests.sockets import TEXT, frame, raw_socket, talking
from tests.upstream import Upstream, stream_of


@asynchronous
async def test_cancel_of_one_among_fifty_ends_that_one_alone_and_its_upstream_call(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", gate, " world"])
        async with talking(server) as talk:
            for number in range(50):
                await talk.say(op="infer", id=number, model="m", text="hi")
            begun = {number: await talk.until(number, "chunk") for number in range(50)}
            await talk.say(op="cancel", id="c", target=17)
            failure = check_stream(begun.pop(17) + await talk.whole(17))["m"]
            assert failure["code"] == "cancelled"
            await comes_true(lambda: up.cancelled)
            assert (up.cancelled, up.answering, server.services.streams.running) == (1, 49, 49)
            gate.set()
            for number, events in begun.items():
                assert text_of(check_stream(events + await talk.whole(number))["m"]) == "Hello world"
        await server.ended()


@asynchronous
async def test_a_cancelled_infer_ends_for_all_its_readers_with_the_same_events(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, models={"m": says("say:Hello; hang")}) as server,
        talking(server) as one,
        talking(server) as other,
    ):
        await one.say(op="infer", id="a", model="m", text="hi")
        mine = await one.until("a", "chunk")
        await other.say(op="resume", id="b", stream_id=mine[0]["stream_id"])
        await other.say(op="resume", id="c", stream_id=mine[0]["stream_id"])
        await other.until("b", "chunk")
        await one.say(op="cancel", id="x", target="a")
        mine += await one.whole("a")
        assert check_stream(mine)["m"]["code"] == "cancelled"
        assert [mine[0], mine[1], *await other.whole("b")] == mine
        assert await other.whole("c") == mine


@asynchronous
async def test_a_cancelled_resume_only_ends_here(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server, talking(server) as talk:
        up.answer = stream_of(["Hello", gate, " world"])
        await talk.say(op="infer", id="a", model="m", text="hi")
        events = await talk.until("a", "chunk")
        await talk.say(op="resume", id="b", stream_id=events[0]["stream_id"])
        assert await talk.until("b", "chunk") == events
        await talk.say(op="cancel", id="x", target="b")
        assert await talk.next("b") == {"type": "complete"}
        gate.set()
        assert text_of(check_stream(events + await talk.whole("a"))["m"]) == "Hello world"


@pytest.mark.parametrize("last", ["cancel", "unsubscribe"])
@asynchronous
async def test_what_is_ended_in_the_same_breath_as_it_begins_is_ended(tmp_path: Path, last: str) -> None:
    async with serving(tmp_path, models={"m": says("hang")}) as server, raw_socket(server) as line:
        subscribe = {"op": "subscribe", "id": "a", "topics": ["models"]}
        ends = {"cancel": {"op": "cancel", "id": "b", "target": "a"}, "unsubscribe": {**subscribe, "op": "unsubscribe"}}
        await line.send(b"".join(frame(TEXT, json.dumps(op).encode()) for op in (subscribe, ends[last])))
        while (told := await line.message())["type"] == "snapshot":
            pass
        assert told == {"id": "a", "type": "complete"}
        await line.say(**subscribe)
        assert (await line.message())["type"] == "snapshot"


@asynchronous
async def test_an_id_is_free_again_once_its_stream_is_complete(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, models={"m": says("say:Hello; hang"), "e": says("echo")}) as server,
        talking(server) as talk,
    ):
        await talk.say(op="infer", id="a", model="m", text="hi")
        await talk.until("a", "chunk")
        for op in ({"op": "infer", "model": "e", "text": "hi"}, {"op": "subscribe", "topics": ["models"]}):
            await talk.say(id="a", **op)
            assert "already" in (await talk.next("a"))["error"]
        assert server.services.streams.running == 1
        await talk.say(op="cancel", id="x", target="a")
        await talk.whole("a")
        await talk.say(op="infer", id="a", model="e", text="hi")
        check_stream(await talk.whole("a"))


@pytest.mark.parametrize("target", ["nobody", 7, "x", None, 1.5, True, ["a"], {"id": "a"}])
@asynchronous
async def test_cancel_of_what_does_not_run_says_so_and_harms_nothing(tmp_path: Path, target: Any) -> None:
    async with serving(tmp_path, models={"m": says("hang")}) as server, talking(server) as talk:
        for id in ("a", 1):
            await talk.say(op="infer", id=id, model="m", text="hi")
        await talk.say(op="cancel", id="x", target=target)
        assert (await talk.next("x"))["code"] == "not_found"
        assert server.services.streams.running == 2


GOOD_INFER = {"op": "infer", "id": "a", "model": "m", "text": "hi"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"op": "explode"}, "invalid_request", "op"),
    ({"op": ["infer"]}, "invalid_request", "op"),
    ({"op": None}, "invalid_request", "op"),
    ({"op": "infer", "text": "hi"}, "invalid_request", "model"),
    ({"op": "infer", "model": 3, "text": "hi"}, "invalid_request", "model"),
    ({"op": "infer", "model": "m"}, "invalid_request", "text"),
    ({"op": "infer", "model": "m", "text": "hi", "speed": 3}, "invalid_request", "speed"),
    ({"op": "infer", "model": "m", "models": ["m"], "text": "hi"}, "invalid_request", "model"),
    ({"op": "infer", "models": [], "text": "hi"}, "invalid_request", "models"),
    ({"op": "infer", "models": ["m", "m"], "text": "hi"}, "invalid_request", "models"),
    ({"op": "infer", "model": "nobody", "text": "hi"}, "unknown_model", "nobody"),
    ({"op": "infer", "models": ["m", "nobody"], "text": "hi"}, "unknown_model", "nobody"),
    ({"op": "cancel"}, "not_found", "target"),
    ({"op": "cancel", "target": "b", "all": True}, "invalid_request", "all"),
    ({"op": "resume"}, "invalid_request", "stream_id"),
    ({"op": "resume", "stream_id": "nobody"}, "unknown_stream", "stream"),
    ({"op": "resume", "stream_id": 3}, "invalid_request", "stream_id"),
    ({"op": "resume", "stream_id": "x", "after": "1"}, "invalid_request", "after"),
    ({"op": "resume", "stream_id": "x", "after": -2}, "invalid_request", "after"),
    ({"op": "resume", "stream_id": "x", "after": True}, "invalid_request", "after"),
    ({"op": "resume", "stream_id": "x", "until": 3}, "invalid_request", "until"),
]


@pytest.mark.parametrize(("message", "code", "word"), WRONG, ids=lambda value: str(value)[:40])
@asynchronous
async def test_a_wrong_message_is_told_under_its_id_and_the_socket_stays_open(
    tmp_path: Path, message: dict[str, Any], code: str, word: str
) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        await talk.say(id="a", **message)
        told = await talk.next("a")
        assert (told["type"], told["code"]) == ("error", code)
        assert word in told["error"]
        assert not [leak for leak in LEAKS if leak in told["error"]]
        await talk.say(**GOOD_INFER)
        check_stream(await talk.whole("a"))


@pytest.mark.parametrize("id", [None, 1.5, True, [], {}, "x" * 201, 10**201])
@asynchronous
async def test_without_a_usable_id_the_error_has_none(tmp_path: Path, id: Any) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        await talk.say(**GOOD_INFER | {"id": id})
        told = await talk.any()
        assert (told["type"], told["code"], "id" in told) == ("error", "invalid_request", False)
        await talk.say(op="infer", model="m", text="hi")
        assert (await talk.any())["error"].startswith("id:")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"infer"', "[" * 5000, '{"a":' * 5000, '{"a": NaN}', "\0"])
@asynchronous
async def test_what_is_no_mapping_of_json_is_an_error_and_the_socket_stays_open(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        await talk.ws.send_str(text)
        assert (await talk.next())["code"] == "invalid_request"
        await talk.say(**GOOD_INFER)
        check_stream(await talk.whole("a"))


@asynchronous
async def test_an_error_names_no_more_of_a_message_than_a_person_can_read(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        await talk.say(**GOOD_INFER | {"x" * 1_000_000: 1})
        assert len((await talk.next("a"))["error"]) < 5000
        await talk.say(**GOOD_INFER | {"model": "x" * 1_000_000})
        assert len((await talk.next("a"))["error"]) < 5000
