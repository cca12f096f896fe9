"""GET /api/models: what could be asked."""

from __future__ import annotations

from pathlib import Path

from server.recent import KEPT
from tests.aio import asynchronous
from tests.server.checks import check_error
from tests.serving import says, serving

MODELS = {
    "echo": says("echo", limits={"max_tokens": 9}),
    "away": {"provider": "bedrock-of-another-age", "model": "m"},
    "wrong": says("dance"),
}


@asynchronous
async def test_every_model_of_the_presets_is_listed_with_what_it_can_and_whether_it_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        listed = {model["name"]: model for model in (await server.get("/api/models")).json["models"]}
    assert list(listed) == sorted(MODELS)
    assert listed["echo"]["provider"] == "scripted"
    assert listed["echo"]["capabilities"] == {"text": True, "image": True, "video": False, "stream": True}
    assert listed["echo"]["limits"]["max_tokens"] == 9
    assert (listed["echo"]["availability"], listed["echo"]["reason"]) == ("available", None)
    assert listed["away"]["availability"] == "unavailable"
    assert "bedrock-of-another-age" in listed["away"]["reason"]
    assert listed["wrong"]["availability"] == "unavailable"


@asynchronous
async def test_it_comes_as_messagepack_too(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        answer = await server.get("/api/models", Accept="application/msgpack")
        assert answer.headers["Content-Type"] == "application/msgpack"
        assert [model["name"] for model in answer.unpacked["models"]] == sorted(MODELS)
        check_error(await server.get("/api/models", Accept="text/html"), 406, "not_acceptable", "application/json")


@asynchronous
async def test_a_listing_asks_no_model(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        await server.get("/api/models")
        assert server.scripted.calls == 0


@asynchronous
async def test_how_its_last_answers_went_stands_beside_each_model(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:hi"), "failing": says("fail:model_error")}) as server:
        await server.post("/api/models/m", {"text": "hi"})
        for _ in range(KEPT + 1):
            await server.post("/api/models/failing", {"text": "hi"})
        listed = {model["name"]: model["recent"] for model in (await server.get("/api/models")).json["models"]}
    (answer,) = listed["m"]
    assert answer["ok"]
    assert 0 <= answer["time_to_first_token_ms"] <= answer["duration_ms"]
    assert listed["failing"] == [{"ok": False, "time_to_first_token_ms": None, "duration_ms": None}] * KEPT
