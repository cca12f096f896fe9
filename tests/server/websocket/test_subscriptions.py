"""subscribe and unsubscribe on /ws: a snapshot first, then what changes, as it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.events.feed import Feed
from tests.async_tests import async_test
from tests.running_server import RunningServer, running_server, scripted_model
from tests.sockets import JSON, MSGPACK, Message, connect_websocket


def write_preset(folder: Path, name: str, script: str = "echo") -> None:
    (folder / "presets" / "models" / f"{name}.yaml").write_text(yaml.safe_dump(scripted_model(script)))


def publish_models(server: RunningServer, *names: str) -> None:
    """News on the feed, without a file behind them."""
    for name in names:
        server.services.feed_publisher.feed.append("models", {"type": "model", "name": name})


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@async_test
async def test_subscription_starts_with_snapshot_then_sends_changes(tmp_path: Path, protocol: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        async with connect_websocket(server, protocols=(protocol,)) as client:
            await client.send(op="subscribe", id="f", topics=["models", "presets", "jobs"])
            snapshot = await client.next_event("f")
            assert snapshot["type"] == "snapshot"
            assert snapshot["models"] == (await server.get("/api/models")).json["models"]
            assert snapshot["presets"] == [{"kind": "model", "name": "m"}, {"kind": "pipeline", "name": "pipeline"}]
            assert snapshot["jobs"] == []
            write_preset(tmp_path, "n")
            preset, model = await client.next_event("f"), await client.next_event("f")
        head = {"feed": snapshot["feed"], "seq": snapshot["seq"] + 1}
        assert preset == {**head, "type": "preset", "kind": "model", "name": "n", "change": "added"}
        assert (model["type"], model["name"], model["availability"]) == ("model", "n", "available")
        assert model["seq"] == head["seq"] + 1


@async_test
async def test_subscription_sends_only_its_topics(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        for topic in ("models", "presets", "jobs"):
            await client.send(op="subscribe", id=topic, topics=[topic])
            assert (await client.next_event(topic)).keys() == {"type", "feed", "seq", topic}
        write_preset(tmp_path, "n")
        publish_models(server, "last")
        assert (await client.next_event("presets"))["type"] == "preset"
        assert [(await client.next_event("models"))["name"] for _ in range(2)] == ["last", "n"]
        assert not client._waiting["jobs"]


@async_test
async def test_subscription_with_feed_and_after_resumes_without_snapshot(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        async with connect_websocket(server) as client:
            await client.send(op="subscribe", id="f", topics=["models"])
            seen = await client.next_event("f")
            publish_models(server, "a")
            seen = await client.next_event("f")
        publish_models(server, "b", "c")
        async with connect_websocket(server) as client:
            await client.send(op="subscribe", id="g", topics=["models"], feed=seen["feed"], after=seen["seq"])
            publish_models(server, "d")
            assert [(await client.next_event("g"))["name"] for _ in range(3)] == ["b", "c", "d"]


@async_test
async def test_subscription_resumed_at_end_gets_next_change_first(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        await client.send(op="subscribe", id="f", topics=["models"])
        seen = await client.next_event("f")
        await client.send(op="subscribe", id="g", topics=["models"], feed=seen["feed"], after=seen["seq"])
        await client.send(op="cancel", id="x", target="f")
        await client.read_until_complete("f")
        publish_models(server, "a")
        assert (await client.next_event("g"))["name"] == "a"


@pytest.mark.parametrize("after", [0, -7, 4, 10**25])
@async_test
async def test_subscription_with_unknown_position_gets_lagged_and_snapshot(tmp_path: Path, after: int) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        for feed in ("another-life", server.services.feed_publisher.feed.id):
            server.services.feed_publisher.feed = Feed(capacity=3)
            publish_models(server, *"abcde")
            mine = server.services.feed_publisher.feed.id if feed != "another-life" else feed
            place = 10**25 if after == 4 and feed != "another-life" else after
            await client.send(op="subscribe", id="f", topics=["models"], feed=mine, after=place)
            lagged, snapshot = await client.next_event("f"), await client.next_event("f")
            assert lagged == {"type": "lagged", "feed": server.services.feed_publisher.feed.id, "seq": 4}
            assert (snapshot["type"], snapshot["seq"]) == ("snapshot", 4)
            publish_models(server, "f")
            message = await client.next_event("f")
            assert (message["name"], message["seq"]) == ("f", 5)
            await client.send(op="cancel", id="x", target="f")
            await client.read_until_complete("f")


@async_test
async def test_subscription_overrun_gets_lagged_and_snapshot(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        server.services.feed_publisher.feed = Feed(capacity=3)
        await client.send(op="subscribe", id="f", topics=["models"])
        await client.next_event("f")
        publish_models(server, *"abcdefgh")  # all in one turn of the loop, so nobody can follow
        assert [(await client.next_event("f"))["type"] for _ in range(2)] == ["lagged", "snapshot"]
        publish_models(server, "i")
        assert (await client.next_event("f"))["name"] == "i"


@async_test
async def test_unsubscribe_removes_topics_and_ends_empty_subscription(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        await client.send(op="subscribe", id="f", topics=["models", "presets"])
        await client.next_event("f")
        await client.send(op="unsubscribe", id="u", topics=["models"])
        await client.send(op="cancel", id="done", target="nobody")
        await client.next_event("done")
        publish_models(server, "a")
        server.services.feed_publisher.feed.append("presets", {"type": "preset", "name": "p"})
        assert (await client.next_event("f"))["name"] == "p"
        await client.send(op="unsubscribe", id="u", topics=["presets", "jobs"])
        assert await client.next_event("f") == {"type": "complete"}
        await client.send(op="subscribe", id="f", topics=["jobs"])
        assert (await client.next_event("f"))["type"] == "snapshot"


@async_test
async def test_cancel_of_subscription_completes_it(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        await client.send(op="subscribe", id="f", topics=["models"])
        await client.next_event("f")
        await client.send(op="cancel", id="x", target="f")
        assert await client.next_event("f") == {"type": "complete"}


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
@async_test
async def test_subscription_invalid_fields_are_errors(tmp_path: Path, op: str, fields: dict[str, Any]) -> None:
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        await client.send(op=op, id="f", **fields)
        message = await client.next_event("f")
        assert (message["type"], message["code"]) == ("error", "invalid_request")
        assert any(name in message["error"] for name in ("topics", "after", "feed", "since"))
