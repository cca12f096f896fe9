"""One question to one model, one answer: contract.md 1 and 2."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import RunningServer, running_server, scripted_model, spin_until, upstream_model
from tests.server.checks import check_error
from tests.upstream import CUT, Upstream, error_response, hanging_response, json_response, raw_response, stream_response

PICTURE = plain_picture(8, 8)


@async_test
async def test_inference_answer_is_documented_envelope(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:Hello there; usage:3,4")}) as server:
        answer = await server.post("/api/models/m", {"text": "Hi"}, **{"X-Request-Id": "mine-1"})
    body = answer.json
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert datetime.fromisoformat(body["time"]).tzinfo is not None
    assert body["request"] == {
        "text": "Hi",
        "frames_count": 0,
        "media_type": "image",
        "max_tokens": 1024,
        "temperature": 0.1,
    }
    assert body["response"]["content"] == [{"type": "text", "text": "Hello there"}]
    assert body["response"]["usage"] == {"input_tokens": 3, "output_tokens": 4}
    assert body["response"]["stop_reason"] == "end_turn"
    assert body["response"].keys() == {"id", "model", "content", "stop_reason", "usage"}
    metadata = body["metadata"]
    assert (metadata["request_id"], metadata["model"], metadata["provider"]) == ("mine-1", "m", "scripted")
    assert 0 <= metadata["overhead_ms"] <= metadata["duration_ms"]
    assert 0 <= metadata["time_to_first_token_ms"] <= metadata["duration_ms"]


@pytest.mark.parametrize("path", ["/api/claude4", "/api/nova", "/api/models/claude4"])
@async_test
async def test_inference_short_paths_are_preset_names(tmp_path: Path, path: str) -> None:
    async with running_server(
        tmp_path, models={"claude4": scripted_model("echo"), "nova": scripted_model("echo")}
    ) as server:
        assert (await server.post(path, {"text": "hi"})).text == "hi"


@async_test
async def test_inference_unknown_model_is_404(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for path in ["/api/models/nobody", "/api/claude4", "/api/emd/nobody", "/api/models/M", "/api/models/..%2Fm"]:
            error_body = check_error(await server.post(path, {"text": "hi"}), 404, "unknown_model", "/api/models")
            assert error_body["request"]["text"] == "hi"


@async_test
async def test_inference_emd_path_serves_emd_models_only(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        check_error(await server.post("/api/emd/m", {"text": "hi"}), 404, "unknown_model")
        assert server.scripted.calls == 0


@async_test
async def test_request_id_of_client_is_kept_if_valid(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for client_id in ["a", "A-1_b.c:d", "x" * 128]:
            answer = await server.post("/api/models/m", {"text": "hi"}, **{"X-Request-Id": client_id})
            assert answer.headers["X-Request-Id"] == answer.json["metadata"]["request_id"] == client_id
        for client_id in ["", "x" * 129, "a b", 'a"', "<script>", "ä"]:
            answer = await server.post("/api/models/m", {"text": "hi"}, **{"X-Request-Id": client_id})
            assert answer.headers["X-Request-Id"] == answer.json["metadata"]["request_id"] != client_id
            assert len(answer.headers["X-Request-Id"]) == 32


@async_test
async def test_inference_messagepack_carries_frames_as_bytes(tmp_path: Path) -> None:
    body = msgpack.packb({"text": "hi", "frames": [PICTURE.data]})
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
        answer = await server.request("POST", "/api/models/m", data=body, headers=headers)
        assert answer.headers["Content-Type"] == "application/msgpack"
        assert answer.unpacked["request"]["frames_count"] == 1
        assert answer.unpacked["response"]["content"][0]["text"] == "hi"
        missing = await server.request("POST", "/api/models/nobody", data=body, headers=headers)
        assert missing.headers["Content-Type"] == "application/msgpack"
        check_error(missing, 404, "unknown_model")


@pytest.mark.parametrize("frame", [PICTURE.as_base64(), "data:image/jpeg;base64," + PICTURE.as_base64()])
@pytest.mark.parametrize("field", ["frames", "media"])
@async_test
async def test_inference_frame_reaches_model_in_every_form(tmp_path: Path, field: str, frame: str) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        answer = await server.post("/api/models/m", {"text": "hi", field: [frame]})
        assert answer.json["request"]["frames_count"] == 1
        (message,) = up.requests[0].body["messages"]
        sent = next(part for part in message["content"] if part["type"] == "image_url")
        assert sent["image_url"]["url"] == "data:image/png;base64," + PICTURE.as_base64()


@async_test
async def test_inference_text_may_be_empty_with_frame(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:seen")}) as server:
        assert (await server.post("/api/models/m", {"text": "", "frames": [PICTURE.as_base64()]})).text == "seen"
        check_error(await server.post("/api/models/m", {"text": ""}), 400, "invalid_request", "text")


@async_test
async def test_inference_metadata_shows_changed_parameters(tmp_path: Path) -> None:
    capped = scripted_model("echo", limits={"max_tokens": 5}, refuses=["temperature"])
    async with running_server(tmp_path, models={"m": scripted_model("echo"), "capped": capped}) as server:
        body = (await server.post("/api/models/capped", {"text": "hi", "max_tokens": 99, "temperature": 0.7})).json
        assert (body["request"]["max_tokens"], body["request"]["temperature"]) == (99, 0.7)
        assert body["metadata"]["sent"] == {"max_tokens": 5, "temperature": None}
        assert "sent" not in (await server.post("/api/models/m", {"text": "hi"})).json["metadata"]


@async_test
async def test_inference_temperature_above_model_maximum_is_400(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo", limits={"temperature": 1.0})}) as server:
        refused = await server.post("/api/models/m", {"text": "hi", "temperature": 1.5})
        check_error(refused, 400, "invalid_request", "temperature", "at most 1")
        assert server.scripted.calls == 0
        assert (await server.post("/api/models/m", {"text": "hi", "temperature": 1.0})).status == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resumable", True),
        ("frames", [PICTURE.as_base64()] * 3),
        ("frames", ["!"]),
        ("frames", [PICTURE.as_base64()[:40]]),
    ],
)
@async_test
async def test_inference_invalid_field_is_400_and_named(tmp_path: Path, field: str, value: Any) -> None:
    async with running_server(tmp_path, "--max-frames", "2", models={"m": scripted_model("echo")}) as server:
        refused = await server.post("/api/models/m", {"text": "hi", field: value})
        check_error(refused, 400, "invalid_request", field)
        assert server.scripted.calls == 0


@async_test
async def test_inference_too_many_frames_is_400(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo", limits={"frames": 1})}) as server:
        refused = await server.post("/api/models/m", {"text": "hi", "frames": [PICTURE.as_base64()] * 2})
        check_error(refused, 400, "invalid_request", "frames")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("key", ["Last-Event-ID"])
@async_test
async def test_inference_post_with_last_event_id_is_400(tmp_path: Path, key: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for path in ["/api/models/m", "/api/stream/m", "/api/multi-inference"]:
            refused = await server.post(path, {"text": "hi"}, **{key: "3"})
            check_error(refused, 400, "invalid_request", "/api/streams/{stream_id}")


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain", "application/x-ndjson", "image/png"])
@async_test
async def test_inference_answer_is_json_or_messagepack(tmp_path: Path, accept: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        refused = await server.post("/api/models/m", {"text": "hi"}, Accept=accept)
        check_error(refused, 406, "not_acceptable", "application/msgpack")
        assert server.scripted.calls == 0


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        (error_response(400, {"message": "too many tokens"}), 400, "invalid_request", "too many tokens"),
        (error_response(401), 503, "unavailable", "credentials"),
        (error_response(429, headers={"Retry-After": "7"}), 429, "rate_limited", ""),
        (error_response(429), 429, "rate_limited", ""),
        (error_response(500, {"message": "CUDA out of memory"}), 500, "model_error", "CUDA out of memory"),
        (error_response(503), 503, "unavailable", ""),
        (raw_response([b"<html>what?</html>"]), 500, "model_error", ""),
        (stream_response(["Hello", CUT]), 500, "model_error", "broke off"),
        (stream_response(["Hello"], cut_at=30), 500, "model_error", ""),
        (hanging_response(), 503, "unavailable", "did not begin"),
        (stream_response(["Hello", asyncio.Event()]), 503, "unavailable", "silent"),
    ],
)
@async_test
async def test_inference_upstream_failures_have_status_and_code(
    tmp_path: Path, answer: Any, status: int, code: str, words: str
) -> None:
    timeouts = {"first_token": 1, "between_tokens": 1}
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url, timeouts=timeouts)}) as server,
    ):
        up.response = answer
        error_body = check_error(await server.post("/api/models/m", {"text": "hi"}), status, code, words)
        assert error_body["request"]["text"] == "hi"
        await up.wait_until_idle()
        await server.wait_until_idle()


@async_test
async def test_inference_passes_retry_after_of_provider(tmp_path: Path) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = error_response(429, headers={"Retry-After": "7"})
        assert (await server.post("/api/models/m", {"text": "hi"})).headers["Retry-After"] == "7"


@async_test
async def test_inference_unreachable_upstream_is_503(tmp_path: Path) -> None:
    async with Upstream() as up:
        base_url = up.base_url
    async with running_server(tmp_path, models={"m": upstream_model(base_url)}) as server:
        check_error(await server.post("/api/models/m", {"text": "hi"}), 503, "unavailable", "127.0.0.1")


@async_test
async def test_inference_time_to_first_token_is_null_without_streaming(tmp_path: Path) -> None:
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url, capabilities=["text"])}) as server,
    ):
        up.response = json_response("Hello")
        body = (await server.post("/api/models/m", {"text": "hi"})).json
        assert body["metadata"]["time_to_first_token_ms"] is None
        assert body["response"]["usage"] == {"input_tokens": 3, "output_tokens": 2}
        assert not up.requests[0].body.get("stream")


@async_test
async def test_inference_usage_is_null_where_unknown(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        body = (await server.post("/api/models/m", {"text": "hi"})).json
        assert body["response"]["usage"] == {"input_tokens": None, "output_tokens": None}


async def occupy_limit(server: RunningServer, path: str) -> asyncio.Task[Any]:
    """Asks what never ends, and returns when the model has the question."""
    calls = server.scripted.calls
    task = asyncio.create_task(server.post(path, {"text": "hi"}))
    await spin_until(lambda: server.scripted.calls > calls)
    return task


@async_test
async def test_inference_at_limit_is_429_with_retry_after(tmp_path: Path) -> None:
    models = {"m": scripted_model("hang", concurrency={"calls": 1, "queue": 0}), "echo": scripted_model("echo")}
    async with running_server(tmp_path, "--max-streams", "2", models=models) as server:
        first = await occupy_limit(server, "/api/models/m")
        check_error(await server.post("/api/models/m", {"text": "hi"}), 429, "rate_limited", "no more calls")
        assert (await server.post("/api/models/echo", {"text": "hi"})).status == 200
        first.cancel()
        await server.wait_until_idle()


@async_test
async def test_inference_at_server_limit_is_429_on_every_path(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, "--max-streams", "1", models={"m": scripted_model("hang"), "echo": scripted_model("echo")}
    ) as server:
        first = await occupy_limit(server, "/api/models/m")
        for path, more in [("models/echo", {}), ("stream/echo", {}), ("multi-inference", {"models": ["echo"]})]:
            refused = await server.post(f"/api/{path}", {"text": "hi", **more})
            check_error(refused, 429, "rate_limited", "1 requests")
        first.cancel()
        await server.wait_until_idle()
        assert (await server.post("/api/models/echo", {"text": "hi"})).status == 200


@async_test
async def test_inference_failed_call_is_not_counted_as_overhead(tmp_path: Path) -> None:
    models = {"slow": scripted_model("pause:0.2; fail:model_error", fallback=["hi"]), "hi": scripted_model("say:hi")}
    stages = ["fallback", "route_model", "invoke", "normalize_envelope"]
    async with running_server(tmp_path, models=models, stages=stages) as server:
        metadata = (await server.post("/api/models/slow", {"text": "x"})).json["metadata"]
        assert metadata["duration_ms"] - metadata["overhead_ms"] >= 199
