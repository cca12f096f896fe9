"""The access log: one event per request with what operators ask for, and nothing that clients sent or were told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.processes import ServerProcess, running_process
from tests.running_server import scripted_model, upstream_model
from tests.upstream import Upstream, error_response, stream_response

KEY, UPSTREAM_KEY = "planted-client-key", "planted-upstream-key"
TEXT, ANSWER, SYSTEM = "planted-question", "planted-answer", "planted-system"
PICTURE = plain_picture(9, 9).as_base64()
BODY = {"text": TEXT, "system": SYSTEM, "frames": [PICTURE]}
ENVIRON = {"FORGELINE_API_KEYS": KEY, "UPSTREAM_KEY": UPSTREAM_KEY}

Event = dict[str, Any]


class LoggingServer:
    """A server in a process of its own, and the log that it left when it was stopped."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.written = ""

    async def post(self, path: str, body: Any = BODY, request_id: str = "", key: str = KEY) -> str:
        headers = {"X-API-Key": key, "X-Request-Id": request_id}
        async with self.process.http.post(self.process.url + path, json=body, headers=headers) as response:
            return await response.text()

    async def stop(self) -> None:
        self.written = (await self.process.stop()).err

    @property
    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.written.splitlines()]

    def find_event(self, request_id: str, event: str = "request") -> Event:
        """The one event of this request."""
        (entry,) = [one for one in self.events if one["event"] == event and one.get("request_id") == request_id]
        return entry


@asynccontextmanager
async def logging_server(folder: Path, models: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[LoggingServer]:
    stages = list(DEFAULT_STAGES)
    async with running_process(
        folder, "--log-format", "json", models=models, stages=stages, environ=ENVIRON
    ) as process:
        yield LoggingServer(process)


MODELS = {
    "ok": scripted_model(f"say:{ANSWER} two; usage:30,4"),
    "bad": scripted_model("fail:model_error"),
    "slow": scripted_model(f"say:{ANSWER}; hang"),
}


@async_test
async def test_access_log_has_one_event_per_request(tmp_path: Path) -> None:
    async with logging_server(tmp_path, MODELS) as server:
        await server.post("/api/models/ok", request_id="plain")
        await server.post("/api/stream/ok", request_id="stream")
        await server.post("/api/models/bad", request_id="failed")
        await server.stop()
    for request_id, path in [("plain", "/api/models/ok"), ("stream", "/api/stream/ok")]:
        event = server.find_event(request_id)
        assert (event["method"], event["path"], event["status"], event["level"]) == ("POST", path, 200, "info")
        assert datetime.fromisoformat(event["timestamp"]).tzinfo is not None
        (model,) = event["models"]
        assert (model["model"], model["code"]) == ("ok", "ok")
        assert (model["input_tokens"], model["output_tokens"]) == (30, 4)
        assert 0 <= model["overhead_ms"] <= model["duration_ms"] <= event["duration_ms"]
        assert 0 <= model["time_to_first_token_ms"] <= model["duration_ms"]
    assert server.find_event("failed")["status"] == 500
    assert server.find_event("failed")["models"] == [{"model": "bad", "code": "model_error"}]


@async_test
async def test_access_log_lists_outcome_of_each_model(tmp_path: Path) -> None:
    async with logging_server(tmp_path, MODELS) as server:
        await server.post("/api/multi-inference", {**BODY, "models": ["ok", "bad"]}, request_id="several")
        await server.stop()
    codes = [(model["model"], model["code"]) for model in server.find_event("several")["models"]]
    assert codes == [("ok", "ok"), ("bad", "model_error")]


@async_test
async def test_access_log_has_event_for_rejected_request(tmp_path: Path) -> None:
    async with logging_server(tmp_path, MODELS) as server:
        await server.post("/api/models/ok", request_id="stranger", key="wrong-planted-key")
        await server.post("/api/models/nobody", request_id="nobody")
        await server.post("/api/models/ok", {"text": 5}, request_id="wrong")
        await server.stop()
    assert [server.find_event(one)["status"] for one in ("stranger", "nobody", "wrong")] == [401, 404, 400]
    assert "planted" not in server.written


@async_test
async def test_access_log_client_disconnect_is_499(tmp_path: Path) -> None:
    async with logging_server(tmp_path, MODELS) as server:
        headers = {"X-API-Key": KEY, "X-Request-Id": "streamed"}
        url = server.process.url + "/api/stream/slow"
        async with server.process.http.post(url, json=BODY, headers=headers) as response:
            await response.content.readuntil(b"event: chunk")
            response.close()
        plain = asyncio.create_task(server.post("/api/models/slow", request_id="plain"))
        await wait_for_line(server, "forgeline_open_streams 1.0")
        plain.cancel()
        await wait_for_line(server, "forgeline_open_streams 0.0")
        await server.stop()
    assert (server.find_event("streamed")["status"], server.find_event("plain")["status"]) == (200, 499)
    for request_id in ("streamed", "plain"):
        assert server.find_event(request_id)["models"] == [{"model": "slow", "code": "cancelled"}]
    assert not [event for event in server.events if event["level"] == "error"]


async def wait_for_line(server: LoggingServer, line: str) -> None:
    """Returns when /metrics says so."""
    answer_text = ""
    while line not in answer_text:
        async with server.process.http.get(server.process.url + "/metrics", headers={"X-API-Key": KEY}) as response:
            answer_text = await response.text()


@async_test
async def test_access_log_has_event_for_each_websocket_stream(tmp_path: Path) -> None:
    async with logging_server(tmp_path, MODELS) as server:
        headers = {"X-API-Key": KEY, "X-Request-Id": "socket"}
        async with server.process.http.ws_connect(server.process.url + "/ws", headers=headers) as ws:
            for number, model in enumerate(["ok", "bad"]):
                await ws.send_json({"op": "infer", "id": number, "model": model, **BODY})
                while (await ws.receive_json())["type"] != "complete":
                    pass
        await server.stop()
    assert server.find_event("socket")["status"] == 101
    assert server.find_event("socket.1", "inference")["models"][0]["output_tokens"] == 4
    assert server.find_event("socket.2", "inference")["models"] == [{"model": "bad", "code": "model_error"}]


@async_test
async def test_log_of_retry_and_fallback_has_request_id(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.response = error_response(503, f"{ANSWER} {UPSTREAM_KEY}")
        m = upstream_model(
            up.base_url, api_key_env="UPSTREAM_KEY", retry={"attempts": 2, "backoff": 0.001}, fallback=["ok"]
        )
        async with logging_server(tmp_path, {**MODELS, "m": m}) as server:
            await server.post("/api/models/m", request_id="fell")
            await server.stop()
    assert (
        server.find_event("fell", "retry_scheduled")["model"],
        server.find_event("fell", "retry_scheduled")["code"],
    ) == (
        "m",
        "unavailable",
    )
    assert (
        server.find_event("fell", "fallback_attempted")["model"],
        server.find_event("fell", "fallback_attempted")["fallback"],
    ) == (
        "m",
        "ok",
    )
    (model,) = server.find_event("fell")["models"]
    assert (model["model"], model["answered_by"], model["code"]) == ("m", "ok", "ok")
    assert "planted" not in server.written


@async_test
async def test_log_has_no_texts_frames_or_keys(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.responses = {
            "good": stream_response([ANSWER]),
            "refuses": error_response(400, f"{ANSWER} {UPSTREAM_KEY} {TEXT}"),
        }
        models = {name: upstream_model(up.base_url, name, api_key_env="UPSTREAM_KEY") for name in up.responses} | MODELS
        async with logging_server(tmp_path, models) as server:
            for name in models:
                if name != "slow":
                    await server.post(f"/api/models/{name}")
                    await server.post(f"/api/stream/{name}")
            for body in ({"text": [TEXT]}, {**BODY, TEXT: 1}, {**BODY, "frames": ["planted!"]}, [TEXT]):
                assert '"invalid_request"' in await server.post("/api/models/ok", body)
            broken = aiohttp.FormData({"text": TEXT})
            headers = {"Authorization": f"Bearer {KEY}"}
            url = server.process.url + "/api/models/ok"
            async with server.process.http.post(url, data=broken, headers=headers) as response:
                assert response.status == 415
            await server.stop()
    assert len([event for event in server.events if event["event"] == "request"]) == 13
    assert "planted" not in server.written
    assert PICTURE[:40] not in server.written
