"""POST /api/multi-inference: many models side by side, none in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import running_server, scripted_model, spin_until, upstream_model
from tests.server.checks import check_error, check_stream, text_of
from tests.upstream import Responder, Upstream, error_response, hanging_response, stream_response

PATH = "/api/multi-inference"
MODELS = {
    "a": scripted_model("say:I am a"),
    "b": scripted_model("say:I am b; fail:model_error"),
    "c": scripted_model("fail:model_not_deployed"),
    "d": scripted_model("fail:rate_limited"),
}


def request_body(*models: str, **fields: Any) -> dict[str, Any]:
    return {"text": "hi", "models": list(models), **fields}


@async_test
async def test_multi_results_are_in_request_order_with_status(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        answer = await server.post(PATH, request_body("c", "b", "d", "a"))
    body = answer.json
    assert answer.status == 200
    assert body.keys() == {"time", "request", "results", "metadata"}
    assert body["metadata"]["request_id"] == answer.headers["X-Request-Id"]
    assert [result["model"] for result in body["results"]] == ["c", "b", "d", "a"]
    assert [result["status"] for result in body["results"]] == ["not_deployed", "error", "error", "success"]
    deploy, failed, limited, good = body["results"]
    assert deploy["code"] == "model_not_deployed"
    assert failed.keys() == {"model", "status", "error", "code", "duration_ms"}
    assert (limited["code"], limited["retry_after"]) == ("rate_limited", 1.0)
    assert good.keys() == {"model", "status", "response", "duration_ms"}
    assert good["response"]["content"] == [{"type": "text", "text": "I am a"}]
    assert all(result["duration_ms"] >= 0 for result in body["results"])


@async_test
async def test_multi_body_as_messagepack(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        answer = await server.post(PATH, request_body("a", "b"), Accept="application/msgpack")
        assert [result["status"] for result in answer.unpacked["results"]] == ["success", "error"]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
@async_test
async def test_multi_stream_events_have_model(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        answer = await server.post(PATH, request_body("a", "b", "c", "d"), Accept=accept)
    outcomes = check_stream(answer.events if accept == "text/event-stream" else answer.ndjson_events)
    assert text_of(outcomes["a"]) == "I am a"
    codes = [outcomes[model]["code"] for model in "bcd"]
    assert codes == ["model_error", "model_not_deployed", "rate_limited"]


@async_test
async def test_multi_stream_of_one_model_has_model(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        events = (await server.post(PATH, request_body("d"), Accept="text/event-stream")).events
        assert [event["type"] for event in events] == ["start", "error", "complete"]
        assert check_stream(events)["d"]["code"] == "rate_limited"


@async_test
async def test_multi_stream_as_text_is_406(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        check_error(await server.post(PATH, request_body("a"), Accept="text/plain"), 406, "not_acceptable")
        assert server.scripted.calls == 0


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (None, "models"),
        ([], "models"),
        (["a", "a"], "twice"),
        ("a", "models"),
        ([1], "models[0]"),
        ([f"m{n}" for n in range(17)], "models"),
    ],
)
@async_test
async def test_multi_invalid_models_is_400(tmp_path: Path, models: Any, words: str) -> None:
    body = {"text": "hi"} if models is None else {"text": "hi", "models": models}
    async with running_server(tmp_path, models=MODELS) as server:
        check_error(await server.post(PATH, body), 400, "invalid_request", words)
        assert server.scripted.calls == 0


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@async_test
async def test_multi_unknown_model_is_404_before_any_call(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        refused = await server.post(PATH, request_body("a", "nobody"), Accept=accept)
        check_error(refused, 404, "unknown_model", "nobody")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("frame", ["!!!", plain_picture(8, 8).as_base64()[:64], "aGVsbG8="])
@pytest.mark.parametrize("models", [["a"], ["a", "b"]])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@async_test
async def test_multi_invalid_frame_is_400_for_whole_request(
    tmp_path: Path, frame: str, models: Sequence[str], accept: str
) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        refused = await server.post(PATH, request_body(*models, frames=[frame]), Accept=accept)
        check_error(refused, 400, "invalid_request", "frames[0]")
        assert server.scripted.calls == 0


@async_test
async def test_multi_resumable_requires_streaming(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        check_error(await server.post(PATH, request_body("a", resumable=True)), 400, "invalid_request", "resumable")
        answer = await server.post(PATH, request_body("a", resumable=True), Accept="text/event-stream")
        check_stream(answer.events)


@async_test
async def test_multi_error_of_one_model_is_its_own(tmp_path: Path) -> None:
    cool = scripted_model("echo", limits={"temperature": 0.5})
    async with running_server(tmp_path, models={"cool": cool, "warm": scripted_model("echo")}) as server:
        results = (await server.post(PATH, request_body("cool", "warm", temperature=0.9))).json["results"]
        assert [result["status"] for result in results] == ["error", "success"]
        assert results[0]["code"] == "invalid_request"


@async_test
async def test_multi_limit_of_one_model_is_its_own_error(tmp_path: Path) -> None:
    models = {"busy": scripted_model("hang", concurrency={"calls": 1, "queue": 0}), "free": scripted_model("echo")}
    async with (
        running_server(tmp_path, models=models) as server,
        server.open_stream(PATH, request_body("busy")) as live,
    ):
        await live.next_event()
        await spin_until(lambda: server.scripted.calls)
        results = (await server.post(PATH, request_body("busy", "free"))).json["results"]
        assert [result["status"] for result in results] == ["error", "success"]
        assert results[0]["code"] == "rate_limited"


@pytest.mark.parametrize("answer", [hanging_response(), stream_response(["Hel", asyncio.Event()]), error_response(500)])
@async_test
async def test_multi_hanging_model_does_not_delay_others(tmp_path: Path, answer: Responder) -> None:
    """Each gate opens only when the client has the event before it: if one model waited for the other, none would."""
    gates = [asyncio.Event() for _ in range(3)]
    async with Upstream() as up:
        up.responses = {
            "bad": answer,
            "good": stream_response([piece for n, g in enumerate(gates) for piece in (g, f"{n}")]),
        }
        models = {"bad": upstream_model(up.base_url, "bad"), "good": upstream_model(up.base_url, "good")}
        async with (
            running_server(tmp_path, models=models) as server,
            server.open_stream(PATH, request_body("bad", "good")) as live,
        ):
            assert (await live.next_event())["type"] == "start"
            for number, gate in enumerate(gates):
                gate.set()
                event = await live.next_event()
                while event["model"] == "bad":
                    event = await live.next_event()
                assert (event["model"], event["delta"]) == ("good", f"{number}")
            event = await live.next_event()
            while event["model"] == "bad":
                event = await live.next_event()
            assert event["type"] == "result"


@async_test
async def test_multi_stream_starts_before_any_model(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"a": scripted_model("hang"), "b": scripted_model("hang")}) as server:
        async with server.open_stream(PATH, request_body("a", "b")) as live:
            assert live.response.status == 200
            assert (await live.next_event())["models"] == ["a", "b"]
        await server.wait_until_idle()
        assert server.scripted.cancelled == 2


@async_test
async def test_multi_sixteen_models_run_concurrently(tmp_path: Path) -> None:
    names = [f"m{n}" for n in range(16)]
    async with running_server(tmp_path, models={name: scripted_model("chunks:100") for name in names}) as server:
        outcomes = check_stream((await server.post(PATH, request_body(*names), Accept="text/event-stream")).events)
        assert {text_of(outcome) for outcome in outcomes.values()} == {"".join(f"tok{n} " for n in range(100))}
        assert list(outcomes) == names
