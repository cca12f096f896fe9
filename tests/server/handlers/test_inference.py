"""One question to one model, one answer: contract.md 1 and 2."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.server.checks import check_error
from tests.serving import Server, asks, says, serving, until
from tests.upstream import CUT, Upstream, hang, raw, refusal, stream_of, whole

PICTURE = plain(8, 8)


@asynchronous
async def test_an_answer_is_the_envelope_of_the_reference_and_more(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:Hello there; usage:3,4")}) as server:
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
@asynchronous
async def test_the_short_addresses_are_names_in_the_presets(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, models={"claude4": says("echo"), "nova": says("echo")}) as server:
        assert (await server.post(path, {"text": "hi"})).text == "hi"


@asynchronous
async def test_a_name_that_no_preset_defines_is_404(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for path in ["/api/models/nobody", "/api/claude4", "/api/emd/nobody", "/api/models/M", "/api/models/..%2Fm"]:
            told = check_error(await server.post(path, {"text": "hi"}), 404, "unknown_model", "/api/models")
            assert told["request"]["text"] == "hi"


@asynchronous
async def test_the_emd_address_answers_for_emd_models_only(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        check_error(await server.post("/api/emd/m", {"text": "hi"}), 404, "unknown_model")
        assert server.scripted.calls == 0


@asynchronous
async def test_request_ids_are_kept_if_they_are_sane_and_made_otherwise(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for given in ["a", "A-1_b.c:d", "x" * 128]:
            answer = await server.post("/api/models/m", {"text": "hi"}, **{"X-Request-Id": given})
            assert answer.headers["X-Request-Id"] == answer.json["metadata"]["request_id"] == given
        for given in ["", "x" * 129, "a b", 'a"', "<script>", "ä"]:
            answer = await server.post("/api/models/m", {"text": "hi"}, **{"X-Request-Id": given})
            assert answer.headers["X-Request-Id"] == answer.json["metadata"]["request_id"] != given
            assert len(answer.headers["X-Request-Id"]) == 32


@asynchronous
async def test_messagepack_carries_frames_as_bytes_and_answers_in_kind_where_asked(tmp_path: Path) -> None:
    body = msgpack.packb({"text": "hi", "frames": [PICTURE.data]})
    async with serving(tmp_path, models={"m": says("echo")}) as server:
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
@asynchronous
async def test_a_frame_reaches_the_model_by_either_name_and_in_either_form(
    tmp_path: Path, field: str, frame: str
) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        answer = await server.post("/api/models/m", {"text": "hi", field: [frame]})
        assert answer.json["request"]["frames_count"] == 1
        (message,) = up.requests[0].body["messages"]
        sent = next(part for part in message["content"] if part["type"] == "image_url")
        assert sent["image_url"]["url"] == "data:image/png;base64," + PICTURE.as_base64()


@asynchronous
async def test_a_text_may_be_empty_beside_a_frame(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:seen")}) as server:
        assert (await server.post("/api/models/m", {"text": "", "frames": [PICTURE.as_base64()]})).text == "seen"
        check_error(await server.post("/api/models/m", {"text": ""}), 400, "invalid_request", "text")


@asynchronous
async def test_what_was_sent_is_told_where_it_differs_from_what_was_asked(tmp_path: Path) -> None:
    capped = says("echo", limits={"max_tokens": 5}, refuses=["temperature"])
    async with serving(tmp_path, models={"m": says("echo"), "capped": capped}) as server:
        body = (await server.post("/api/models/capped", {"text": "hi", "max_tokens": 99, "temperature": 0.7})).json
        assert (body["request"]["max_tokens"], body["request"]["temperature"]) == (99, 0.7)
        assert body["metadata"]["sent"] == {"max_tokens": 5, "temperature": None}
        assert "sent" not in (await server.post("/api/models/m", {"text": "hi"})).json["metadata"]


@asynchronous
async def test_a_temperature_above_the_models_own_maximum_is_400(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo", limits={"temperature": 1.0})}) as server:
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
@asynchronous
async def test_what_a_plain_answer_does_not_take_is_400_and_names_the_field(
    tmp_path: Path, field: str, value: Any
) -> None:
    async with serving(tmp_path, "--max-frames", "2", models={"m": says("echo")}) as server:
        refused = await server.post("/api/models/m", {"text": "hi", field: value})
        check_error(refused, 400, "invalid_request", field)
        assert server.scripted.calls == 0


@asynchronous
async def test_more_frames_than_the_model_takes_is_400_never_fewer(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo", limits={"frames": 1})}) as server:
        refused = await server.post("/api/models/m", {"text": "hi", "frames": [PICTURE.as_base64()] * 2})
        check_error(refused, 400, "invalid_request", "frames")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("key", ["Last-Event-ID"])
@asynchronous
async def test_a_post_that_wants_to_resume_is_pointed_to_the_address_for_it(tmp_path: Path, key: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for path in ["/api/models/m", "/api/stream/m", "/api/multi-inference"]:
            refused = await server.post(path, {"text": "hi"}, **{key: "3"})
            check_error(refused, 400, "invalid_request", "/api/streams/{stream_id}")


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain", "application/x-ndjson", "image/png"])
@asynchronous
async def test_a_plain_answer_is_json_or_messagepack_and_nothing_else(tmp_path: Path, accept: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        refused = await server.post("/api/models/m", {"text": "hi"}, Accept=accept)
        check_error(refused, 406, "not_acceptable", "application/msgpack")
        assert server.scripted.calls == 0


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        (refusal(400, {"message": "too many tokens"}), 400, "invalid_request", "too many tokens"),
        (refusal(401), 503, "unavailable", "credentials"),
        (refusal(429, headers={"Retry-After": "7"}), 429, "rate_limited", ""),
        (refusal(429), 429, "rate_limited", ""),
        (refusal(500, {"message": "CUDA out of memory"}), 500, "model_error", "CUDA out of memory"),
        (refusal(503), 503, "unavailable", ""),
        (raw([b"<html>what?</html>"]), 500, "model_error", ""),
        (stream_of(["Hello", CUT]), 500, "model_error", "broke off"),
        (stream_of(["Hello"], cut_at=30), 500, "model_error", ""),
        (hang(), 503, "unavailable", "did not begin"),
        (stream_of(["Hello", asyncio.Event()]), 503, "unavailable", "silent"),
    ],
)
@asynchronous
async def test_each_failure_of_an_upstream_has_its_status_and_code(
    tmp_path: Path, answer: Any, status: int, code: str, words: str
) -> None:
    timeouts = {"first_token": 1, "between_tokens": 1}
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url, timeouts=timeouts)}) as server:
        up.answer = answer
        told = check_error(await server.post("/api/models/m", {"text": "hi"}), status, code, words)
        assert told["request"]["text"] == "hi"
        await up.idle()
        await server.ended()


@asynchronous
async def test_the_providers_retry_after_is_passed_on(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = refusal(429, headers={"Retry-After": "7"})
        assert (await server.post("/api/models/m", {"text": "hi"})).headers["Retry-After"] == "7"


@asynchronous
async def test_an_upstream_that_is_not_there_is_503_and_named(tmp_path: Path) -> None:
    async with Upstream() as up:
        base_url = up.base_url
    async with serving(tmp_path, models={"m": asks(base_url)}) as server:
        check_error(await server.post("/api/models/m", {"text": "hi"}), 503, "unavailable", "127.0.0.1")


@asynchronous
async def test_time_to_first_token_is_null_where_the_upstream_did_not_stream(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url, capabilities=["text"])}) as server:
        up.answer = whole("Hello")
        body = (await server.post("/api/models/m", {"text": "hi"})).json
        assert body["metadata"]["time_to_first_token_ms"] is None
        assert body["response"]["usage"] == {"input_tokens": 3, "output_tokens": 2}
        assert not up.requests[0].body.get("stream")


@asynchronous
async def test_usage_is_null_where_the_provider_gives_none(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        body = (await server.post("/api/models/m", {"text": "hi"})).json
        assert body["response"]["usage"] == {"input_tokens": None, "output_tokens": None}


async def fill(server: Server, path: str) -> asyncio.Task[Any]:
    """Asks what never ends, and returns when the model has the question."""
    calls = server.scripted.calls
    task = asyncio.create_task(server.post(path, {"text": "hi"}))
    await until(lambda: server.scripted.calls > calls)
    return task


@asynchronous
async def test_at_the_limit_of_streams_or_of_a_model_it_is_429_with_a_time(tmp_path: Path) -> None:
    models = {"m": says("hang", concurrency={"calls": 1, "queue": 0}), "echo": says("echo")}
    async with serving(tmp_path, "--max-streams", "2", models=models) as server:
        first = await fill(server, "/api/models/m")
        check_error(await server.post("/api/models/m", {"text": "hi"}), 429, "rate_limited", "no more calls")
        assert (await server.post("/api/models/echo", {"text": "hi"})).status == 200
        first.cancel()
        await server.ended()


@asynchronous
async def test_at_the_servers_limit_every_address_says_429(tmp_path: Path) -> None:
    async with serving(tmp_path, "--max-streams", "1", models={"m": says("hang"), "echo": says("echo")}) as server:
        first = await fill(server, "/api/models/m")
        for path, more in [("models/echo", {}), ("stream/echo", {}), ("multi-inference", {"models": ["echo"]})]:
            refused = await server.post(f"/api/{path}", {"text": "hi", **more})
            check_error(refused, 429, "rate_limited", "1 requests")
        first.cancel()
        await server.ended()
        assert (await server.post("/api/models/echo", {"text": "hi"})).status == 200


@asynchronous
async def test_the_time_of_a_call_that_came_to_nothing_is_not_our_overhead(tmp_path: Path) -> None:
    models = {"slow": says("pause:0.2; fail:model_error", fallback=["hi"]), "hi": says("say:hi")}
    stages = ["fallback", "route_model", "invoke", "normalize_envelope"]
    async with serving(tmp_path, models=models, stages=stages) as server:
        metadata = (await server.post("/api/models/slow", {"text": "x"})).json["metadata"]
        assert metadata["duration_ms"] - metadata["overhead_ms"] >= 199
