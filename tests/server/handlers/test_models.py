"""GET /api/models: what could be asked."""

from __future__ import annotations

from pathlib import Path

from server.inference.recent_answers import MAX_RECENT
from tests.async_tests import async_test
from tests.running_server import running_server, scripted_model
from tests.server.checks import check_error

MODELS = {
    "echo": scripted_model("echo", limits={"max_tokens": 9}),
    "away": {"provider": "bedrock-of-another-age", "model": "m"},
    "wrong": scripted_model("dance"),
}


@async_test
async def test_models_list_has_capabilities_and_availability(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        listed = {model["name"]: model for model in (await server.get("/api/models")).json["models"]}
    assert list(listed) == sorted(MODELS)
    assert listed["echo"]["provider"] == "scripted"
    assert listed["echo"]["capabilities"] == {"text": True, "image": True, "video": False, "stream": True}
    assert listed["echo"]["limits"]["max_tokens"] == 9
    assert (listed["echo"]["availability"], listed["echo"]["reason"]) == ("available", None)
    assert listed["away"]["availability"] == "unavailable"
    assert "bedrock-of-another-age" in listed["away"]["reason"]
    assert listed["wrong"]["availability"] == "unavailable"


@async_test
async def test_models_list_as_messagepack(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        answer = await server.get("/api/models", Accept="application/msgpack")
        assert answer.headers["Content-Type"] == "application/msgpack"
        assert [model["name"] for model in answer.unpacked["models"]] == sorted(MODELS)
        check_error(await server.get("/api/models", Accept="text/html"), 406, "not_acceptable", "application/json")


@async_test
async def test_models_list_calls_no_model(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        await server.get("/api/models")
        assert server.scripted.calls == 0


@async_test
async def test_models_list_has_recent_outcomes(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, models={"m": scripted_model("say:hi"), "failing": scripted_model("fail:model_error")}
    ) as server:
        await server.post("/api/models/m", {"text": "hi"})
        for _ in range(MAX_RECENT + 1):
            await server.post("/api/models/failing", {"text": "hi"})
        listed = {model["name"]: model["recent"] for model in (await server.get("/api/models")).json["models"]}
    (answer,) = listed["m"]
    assert answer["ok"]
    assert 0 <= answer["time_to_first_token_ms"] <= answer["duration_ms"]
    assert listed["failing"] == [{"ok": False, "time_to_first_token_ms": None, "duration_ms": None}] * MAX_RECENT
