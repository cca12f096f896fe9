"""A model that is left alone: the feed, /api/models and the answers say so, and when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous
from tests.server.checks import check_error
from tests.serving import Server, asks, serving
from tests.sockets import talking
from tests.upstream import Upstream, refusal, stream_of

HI = {"text": "hi"}
PRESET: dict[str, Any] = {"retry": {"attempts": 1}, "breaker": {"failures": 2, "seconds": 0.1}}


async def listed(server: Server) -> str:
    (model,) = (await server.get("/api/models")).json["models"]
    state: str = model["breaker"]
    return state


@asynchronous
async def test_the_feed_and_the_list_of_models_tell_every_state(tmp_path: Path) -> None:
    async with (
        Upstream() as up,
        serving(tmp_path, models={"m": asks(up.base_url, **PRESET)}, stages=list(DEFAULT_STAGES)) as server,
        talking(server) as talk,
    ):
        await talk.say(op="subscribe", id="f", topics=["models"])
        snapshot = await talk.next("f")
        assert [model["breaker"] for model in snapshot["models"]] == [await listed(server)] == ["closed"]
        up.answer = refusal(500)
        for _ in range(2):
            await server.post("/api/models/m", HI)
        assert ((await talk.next("f"))["breaker"], await listed(server)) == ("open", "open")
        while await listed(server) == "open":
            pass
        assert await listed(server) == "half_open"
        up.answer = stream_of(["back"])
        assert (await server.post("/api/models/m", HI)).text == "back"
        told = [(await talk.next("f"))["breaker"]]
        if told == ["half_open"]:  # told while the probe was under way
            told.append((await talk.next("f"))["breaker"])
        assert (told[-1], await listed(server)) == ("closed", "closed")


@asynchronous
async def test_a_client_of_a_model_that_is_left_alone_is_told_when_to_come_back(tmp_path: Path) -> None:
    preset = {**PRESET, "breaker": {"failures": 2, "seconds": 30}}
    async with (
        Upstream() as up,
        serving(tmp_path, models={"m": asks(up.base_url, **preset)}, stages=list(DEFAULT_STAGES)) as server,
    ):
        up.answer = refusal(500)
        for _ in range(2):
            check_error(await server.post("/api/models/m", HI), 500, "model_error")
        refused = await server.post("/api/models/m", HI)
        check_error(refused, 503, "unavailable", "m failed 2 times in a row")
        assert 25 <= int(refused.headers["Retry-After"]) <= 30
        assert len(up.requests) == 2
