"""A model that is left alone: the feed, /api/models and the answers say so, and when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test
from tests.running_server import RunningServer, running_server, upstream_model
from tests.server.checks import check_error
from tests.sockets import connect_websocket
from tests.upstream import Upstream, error_response, stream_response

HI = {"text": "hi"}
PRESET: dict[str, Any] = {"retry": {"attempts": 1}, "breaker": {"failures": 2, "seconds": 0.1}}


async def get_breaker_state(server: RunningServer) -> str:
    (model,) = (await server.get("/api/models")).json["models"]
    state: str = model["breaker"]
    return state


@async_test
async def test_breaker_states_are_in_feed_and_model_list(tmp_path: Path) -> None:
    async with (
        Upstream() as up,
        running_server(
            tmp_path, models={"m": upstream_model(up.base_url, **PRESET)}, stages=list(DEFAULT_STAGES)
        ) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="subscribe", id="f", topics=["models"])
        snapshot = await client.next_event("f")
        assert [model["breaker"] for model in snapshot["models"]] == [await get_breaker_state(server)] == ["closed"]
        up.response = error_response(500)
        for _ in range(2):
            await server.post("/api/models/m", HI)
        assert ((await client.next_event("f"))["breaker"], await get_breaker_state(server)) == ("open", "open")
        while await get_breaker_state(server) == "open":
            pass
        assert await get_breaker_state(server) == "half_open"
        up.response = stream_response(["back"])
        assert (await server.post("/api/models/m", HI)).text == "back"
        states = [(await client.next_event("f"))["breaker"]]
        if states == ["half_open"]:  # told while the probe was under way
            states.append((await client.next_event("f"))["breaker"])
        assert (states[-1], await get_breaker_state(server)) == ("closed", "closed")


@async_test
async def test_breaker_open_error_has_retry_after(tmp_path: Path) -> None:
    preset = {**PRESET, "breaker": {"failures": 2, "seconds": 30}}
    async with (
        Upstream() as up,
        running_server(
            tmp_path, models={"m": upstream_model(up.base_url, **preset)}, stages=list(DEFAULT_STAGES)
        ) as server,
    ):
        up.response = error_response(500)
        for _ in range(2):
            check_error(await server.post("/api/models/m", HI), 500, "model_error")
        refused = await server.post("/api/models/m", HI)
        check_error(refused, 503, "unavailable", "m failed 2 times in a row")
        assert 25 <= int(refused.headers["Retry-After"]) <= 30
        assert len(up.requests) == 2
