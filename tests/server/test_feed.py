"""subscribe and unsubscribe on /ws: a snapshot first, then what changes, as it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.eventlog import Feed
from tests.aio import asynchronous
from tests.serving import Server, says, serving
from tests.sockets import JSON, MSGPACK, Message, talking


def write(folder: Path, name: str, script: str = "echo") -> None:
    (folder / "presets" / "models" / f"{name}.yaml").write_text(yaml.safe_dump(says(script)))


def tell(server: Server, *names: str) -> None:
    """News on the feed, without a file behind them."""
    for name in names:
        server.services.feed.append("models", {"type": "model", "name": name})


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@asynchronous
async def test_a_snapshot_comes_first_and_then_what_changes_on_disk(tmp_path: Path, protocol: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        async with talking(server, protocols=(protocol,)) as talk:
            await talk.say(op="subscribe", id="f", topics=["models", "presets", "jobs"])
            snapshot = await talk.next("f")
            assert snapshot["type"] == "snapshot"
            assert snapshot["models"] == (await server.get("/api/models")).json["models"]
            assert snapshot["presets"] == [{"kind": "model", "name": "m"}, {"kind": "pipeline", "name": "pipeline"}]
            assert snapshot["jobs"] == []
            write(tmp_path, "n")
            preset, model = await talk.next("f"), await talk.next("f")
        head = {"feed": snapshot["feed"], "seq": snapshot["seq"] + 1}
        assert preset == {**head, "type": "preset", "kind": "model", "name": "n", "change": "added"}
        assert (model["type"], model["name"], model["availability"]) == ("model", "n", "available")
        assert model["seq"] == head["seq"] + 1


@asynchronous
async def test_only_the_topics_that_were_asked_for_are_told(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        for topic in ("models", "presets", "jobs"):
            await talk.say(op="subscribe", id=topic, topics=[topic])
            assert (await talk.next(topic)).keys() == {"type", "feed", "seq", topic}
        write(tmp_path, "n")
        tell(server, "last")
        assert (await talk.next("presets"))["type"] == "preset"
        assert [(await talk.next("models"))["name"] for _ in range(2)] == ["last", "n"]
        assert not talk._waiting["jobs"]


@asynchronous
async def test_with_feed_and_after_it_goes_on_without_a_snapshot_and_without_a_hole(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with talking(server) as talk:
            await talk.say(op="subscribe", id="f", topics=["models"])
            seen = await talk.next("f")
            tell(server, "a")
            seen = await talk.next("f")
        tell(server, "b", "c")
        async with talking(server) as talk:
            await talk.say(op="subscribe", id="g", topics=["models"], feed=seen["feed"], after=seen["seq"])
            tell(server, "d")
            assert [(await talk.next("g"))["name"] for _ in range(3)] == ["b", "c", "d"]


@asynchronous
async def test_with_nothing_missed_the_first_message_is_the_next_change(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["models"])
        seen = await talk.next("f")
        await talk.say(op="subscribe", id="g", topics=["models"], feed=seen["feed"], after=seen["seq"])
        await talk.say(op="cancel", id="x", target="f")
        await talk.whole("f")
        tell(server, "a")
        assert (await talk.next("g"))["name"] == "a"


@pytest.mark.parametrize("after", [0, -7, 4, 10**25])
@asynchronous
async def test_who_comes_from_another_life_or_fell_off_lags_and_gets_a_new_snapshot(tmp_path: Path, after: int) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        for feed in ("another-life", server.services.feed.id):
            server.services.feed = Feed(kept=3)
            tell(server, *"abcde")
            mine = server.services.feed.id if feed != "another-life" else feed
            place = 10**25 if after == 4 and feed != "another-life" else after
            await talk.say(op="subscribe", id="f", topics=["models"], feed=mine, after=place)
            lagged, snapshot = await talk.next("f"), await talk.next("f")
            assert lagged == {"type": "lagged", "feed": server.services.feed.id, "seq": 4}
            assert (snapshot["type"], snapshot["seq"]) == ("snapshot", 4)
            tell(server, "f")
            told = await talk.next("f")
            assert (told["name"], told["seq"]) == ("f", 5)
            await talk.say(op="cancel", id="x", target="f")
            await talk.whole("f")


@asynchronous
async def test_a_subscriber_that_is_overrun_while_it_follows_lags_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        server.services.feed = Feed(kept=3)
        await talk.say(op="subscribe", id="f", topics=["models"])
        await talk.next("f")
        tell(server, *"abcdefgh")  # all in one turn of the loop, so nobody can follow
        assert [(await talk.next("f"))["type"] for _ in range(2)] == ["lagged", "snapshot"]
        tell(server, "i")
        assert (await talk.next("f"))["name"] == "i"


@asynchronous
async def test_unsubscribe_ends_topics_and_with_the_last_one_the_subscription(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["models", "presets"])
        await talk.next("f")
        await talk.say(op="unsubscribe", id="u", topics=["models"])
        await talk.say(op="cancel", id="done", target="nobody")
        await talk.next("done")
        tell(server, "a")
        server.services.feed.append("presets", {"type": "preset", "name": "p"})
        assert (await talk.next("f"))["name"] == "p"
        await talk.say(op="unsubscribe", id="u", topics=["presets", "jobs"])
        assert await talk.next("f") == {"type": "complete"}
        await talk.say(op="subscribe", id="f", topics=["jobs"])
        assert (await talk.next("f"))["type"] == "snapshot"


@asynchronous
async def test_cancel_ends_a_subscription_with_complete(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["models"])
        await talk.next("f")
        await talk.say(op="cancel", id="x", target="f")
        assert await talk.next("f") == {"type": "complete"}


WRONG: list[Message] = [
    {},
    {"topics": []},
    {"topics": "models"},
    {"topics": ["models", "weather"]},
    {"topics": [None]},
    {"topics": [["models"]]},
    {"topics": {"models": 1}},
    {"topics": ["models"], "after": 1},
    {"topics": ["models"], "after": "1", "feed": "x"},
    {"topics": ["models"], "after": True, "feed": "x"},
    {"topics": ["models"], "after": 1, "feed": 1},
    {"topics": ["models"], "since": 1},
]


@pytest.mark.parametrize("fields", WRONG, ids=str)
@pytest.mark.parametrize("op", ["subscribe", "unsubscribe"])
@asynchronous
async def test_what_is_wrong_is_told(tmp_path: Path, op: str, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as server, talking(server) as talk:
        await talk.say(op=op, id="f", **fields)
        told = await talk.next("f")
        assert (told["type"], told["code"]) == ("error", "invalid_request")
        assert any(name in told["error"] for name in ("topics", "after", "feed", "since"))
