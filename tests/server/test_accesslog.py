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

from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.processes import Process, running
from tests.serving import asks, says
from tests.upstream import Upstream, refusal, stream_of

KEY, UPSTREAM_KEY = "planted-client-key", "planted-upstream-key"
TEXT, ANSWER, SYSTEM = "planted-question", "planted-answer", "planted-system"
PICTURE = plain(9, 9).as_base64()
BODY = {"text": TEXT, "system": SYSTEM, "frames": [PICTURE]}
ENVIRON = {"FORGELINE_API_KEYS": KEY, "UPSTREAM_KEY": UPSTREAM_KEY}

Event = dict[str, Any]


class Asking:
    """A server in a process of its own, and the log that it left when it was stopped."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.written = ""

    async def post(self, path: str, body: Any = BODY, request_id: str = "", key: str = KEY) -> str:
        headers = {"X-API-Key": key, "X-Request-Id": request_id}
        async with self.process.http.post(self.process.url + path, json=body, headers=headers) as response:
            return await response.text()

    async def stop(self) -> None:
        self.written = (await self.process.stopped()).err

    @property
    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.written.splitlines()]

    def of(self, request_id: str, event: str = "request") -> Event:
        """The one event of this request."""
        (found,) = [one for one in self.events if one["event"] == event and one.get("request_id") == request_id]
        return found


@asynccontextmanager
async def asking(folder: Path, models: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[Asking]:
    stages = list(DEFAULT_STAGES)
    async with running(folder, "--log-format", "json", models=models, stages=stages, environ=ENVIRON) as process:
        yield Asking(process)


MODELS = {
    "ok": says(f"say:{ANSWER} two; usage:30,4"),
    "bad": says("fail:model_error"),
    "slow": says(f"say:{ANSWER}; hang"),
}


@asynchronous
async def test_each_request_is_one_event_with_ids_models_codes_tokens_and_times(tmp_path: Path) -> None:
    async with asking(tmp_path, MODELS) as server:
        await server.post("/api/models/ok", request_id="plain")
        await server.post("/api/stream/ok", request_id="stream")
        await server.post("/api/models/bad", request_id="failed")
        await server.stop()
    for request_id, path in [("plain", "/api/models/ok"), ("stream", "/api/stream/ok")]:
        event = server.of(request_id)
        assert (event["method"], event["path"], event["status"], event["level"]) == ("POST", path, 200, "info")
        assert datetime.fromisoformat(event["timestamp"]).tzinfo is not None
        (model,) = event["models"]
        assert (model["model"], model["code"]) == ("ok", "ok")
        assert (model["input_tokens"], model["output_tokens"]) == (30, 4)
        assert 0 <= model["overhead_ms"] <= model["duration_ms"] <= event["duration_ms"]
        assert 0 <= model["time_to_first_token_ms"] <= model["duration_ms"]
    assert server.of("failed")["status"] == 500
    assert server.of("failed")["models"] == [{"model": "bad", "code": "model_error"}]


@asynchronous
async def test_several_models_are_one_event_that_says_how_each_ended(tmp_path: Path) -> None:
    async with asking(tmp_path, MODELS) as server:
        await server.post("/api/multi-inference", {**BODY, "models": ["ok", "bad"]}, request_id="several")
        await server.stop()
    codes = [(model["model"], model["code"]) for model in server.of("several")["models"]]
    assert codes == [("ok", "ok"), ("bad", "model_error")]


@asynchronous
async def test_what_is_refused_at_the_door_is_an_event_too(tmp_path: Path) -> None:
    async with asking(tmp_path, MODELS) as server:
        await server.post("/api/models/ok", request_id="stranger", key="wrong-planted-key")
        await server.post("/api/models/nobody", request_id="nobody")
        await server.post("/api/models/ok", {"text": 5}, request_id="wrong")
        await server.stop()
    assert [server.of(one)["status"] for one in ("stranger", "nobody", "wrong")] == [401, 404, 400]
    assert "planted" not in server.written


@asynchronous
async def test_a_client_that_leaves_is_no_failure_of_ours(tmp_path: Path) -> None:
    async with asking(tmp_path, MODELS) as server:
        headers = {"X-API-Key": KEY, "X-Request-Id": "streamed"}
        url = server.process.url + "/api/stream/slow"
        async with server.process.http.post(url, json=BODY, headers=headers) as response:
            await response.content.readuntil(b"event: chunk")
            response.close()
        plain = asyncio.create_task(server.post("/api/models/slow", request_id="plain"))
        await becomes(server, "forgeline_open_streams 1.0")
        plain.cancel()
        await becomes(server, "forgeline_open_streams 0.0")
        await server.stop()
    assert (server.of("streamed")["status"], server.of("plain")["status"]) == (200, 499)
    for request_id in ("streamed", "plain"):
        assert server.of(request_id)["models"] == [{"model": "slow", "code": "cancelled"}]
    assert not [event for event in server.events if event["level"] == "error"]


async def becomes(server: Asking, line: str) -> None:
    """Returns when /metrics says so."""
    said = ""
    while line not in said:
        async with server.process.http.get(server.process.url + "/metrics", headers={"X-API-Key": KEY}) as response:
            said = await response.text()


@asynchronous
async def test_each_stream_of_a_socket_is_an_event_beside_the_handshake_s(tmp_path: Path) -> None:
    async with asking(tmp_path, MODELS) as server:
        headers = {"X-API-Key": KEY, "X-Request-Id": "socket"}
        async with server.process.http.ws_connect(server.process.url + "/ws", headers=headers) as ws:
            for number, model in enumerate(["ok", "bad"]):
                await ws.send_json({"op": "infer", "id": number, "model": model, **BODY})
                while (await ws.receive_json())["type"] != "complete":
                    pass
        await server.stop()
    assert server.of("socket")["status"] == 101
    assert server.of("socket.1", "inference")["models"][0]["output_tokens"] == 4
    assert server.of("socket.2", "inference")["models"] == [{"model": "bad", "code": "model_error"}]


@asynchronous
async def test_a_retry_and_a_fallback_say_for_which_request_they_were(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.answer = refusal(503, f"{ANSWER} {UPSTREAM_KEY}")
        m = asks(up.base_url, api_key_env="UPSTREAM_KEY", retry={"attempts": 2, "backoff": 0.001}, fallback=["ok"])
        async with asking(tmp_path, {**MODELS, "m": m}) as server:
            await server.post("/api/models/m", request_id="fell")
            await server.stop()
    assert (server.of("fell", "retry")["model"], server.of("fell", "retry")["code"]) == ("m", "unavailable")
    assert (server.of("fell", "fallback")["model"], server.of("fell", "fallback")["fallback"]) == ("m", "ok")
    (model,) = server.of("fell")["models"]
    assert (model["model"], model["answered_by"], model["code"]) == ("m", "ok", "ok")
    assert "planted" not in server.written


@asynchronous
async def test_nothing_that_was_asked_answered_or_shown_as_a_key_is_in_the_log(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.answers = {"good": stream_of([ANSWER]), "refuses": refusal(400, f"{ANSWER} {UPSTREAM_KEY} {TEXT}")}
        models = {name: asks(up.base_url, name, api_key_env="UPSTREAM_KEY") for name in up.answers} | MODELS
        async with asking(tmp_path, models) as server:
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
