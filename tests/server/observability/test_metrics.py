"""/metrics: what Prometheus takes, the same numbers that clients counted, and labels without a flood."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import plugins
from pipeline.events import log as event_log
from pipeline.messages import EventStream, Inference, ModelTarget
from pipeline.presets.pipeline import DEFAULT_STAGES
from pipeline.stage import Context, Measurement, Proceed
from tests.async_tests import async_test, wait_until
from tests.running_server import RunningServer, running_server, scripted_model, spin_until, upstream_model
from tests.server.checks import check_error
from tests.server.observability.scraping import Samples, scrape
from tests.sockets import connect_websocket, open_raw_websocket
from tests.upstream import Upstream, error_response, stream_response

HI = {"text": "hi"}
STAGES = list(DEFAULT_STAGES)
QUICK: dict[str, Any] = {"retry": {"backoff": 0.001}, "breaker": {"failures": 1000}}
INFER_OP = {
    "ok": scripted_model("say:Hello there; usage:3,4"),
    "bad": scripted_model("fail:invalid_request"),
    "cut": scripted_model("say:a; hang"),
}


@async_test
async def test_metrics_are_valid_prometheus_text(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=INFER_OP, stages=STAGES) as server:
        await server.post("/api/models/ok", HI)
        answer = await server.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = Samples(answer.content.decode()).families
    assert len({family.name for family in families}) == len(families) > 15
    for family in families:
        assert re.fullmatch(r"(forgeline|process)(_[a-z]+)+", family.name), family.name
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge", "histogram"}
        assert not re.search(r"_(counter|gauge|histogram|ms|milliseconds|total|count|sum|bucket)$", family.name)
        assert all(re.fullmatch(r"[a-z]+", label) for sample in family.samples for label in sample.labels)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {family.name + "_total"}
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


@async_test
async def test_metrics_count_requests_tokens_and_errors(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    async with running_server(tmp_path, models=INFER_OP, stages=STAGES) as server:
        for path in ["models/ok"] * 5 + ["models/bad"] * 3 + ["models/nobody"] * 2 + ["stream/ok"] * 4:
            seen[str((await server.post(f"/api/{path}", HI)).status)] += 1
        async with connect_websocket(server) as client:
            await client.send(op="infer", id=1, model="ok", text="hi")
            await client.read_until_complete(1)
            numbers = await scrape(server)
    assert numbers.by_label("http_requests_total", "status") == {**seen, "101": 1}
    assert numbers("http_requests_total", address="/api/stream/{model_name}", method="POST") == 4
    assert numbers.by_label("errors_total", "code") == {"invalid_request": 3, "unknown_model": 2}
    assert numbers.by_label("inferences_total", "code") == {"ok": 10, "invalid_request": 3}
    assert numbers.by_label("tokens_total", "direction") == {"input": 30, "output": 40}
    for histogram in ("time_to_first_token", "inference_duration", "overhead"):
        assert numbers(f"{histogram}_seconds_count", model="ok") == 10


@async_test
async def test_metrics_count_each_model_of_multi_inference(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=INFER_OP, stages=STAGES) as server:
        await server.post("/api/multi-inference", {**HI, "models": ["ok", "bad"]})
        numbers = await scrape(server)
    assert numbers("inferences_total", model="ok", code="ok") == 1
    assert numbers("inferences_total", model="bad", code="invalid_request") == 1
    assert numbers("http_requests_total") == 1


@async_test
async def test_metrics_durations_are_seconds(tmp_path: Path) -> None:
    models = {"m": scripted_model("pause:0.2; say:a; pause:0.2; say:b")}
    async with running_server(tmp_path, models=models, stages=STAGES) as server:
        await server.post("/api/models/m", HI)
        numbers = await scrape(server)
    assert 0.2 <= numbers("time_to_first_token_seconds_sum", model="m") < 0.4
    assert 0.4 <= numbers("inference_duration_seconds_sum", model="m") < 1
    assert 0 < numbers("overhead_seconds_sum", model="m") < 0.1


@async_test
async def test_metrics_gauges_follow_open_streams_and_sockets(tmp_path: Path) -> None:
    models = {"m": scripted_model("say:a; hang", concurrency={"calls": 2, "queue": 8})}
    async with running_server(tmp_path, models=models, stages=STAGES) as server:
        async with connect_websocket(server) as client, connect_websocket(server):
            for number in range(5):
                await client.send(op="infer", id=number, model="m", text="hi")
            await spin_until(lambda: server.services.streams.running_count == 5)
            await spin_until(lambda: server.scripted.open_responses == 2)
            numbers = await scrape(server)
            assert (numbers("open_streams"), numbers("open_sockets")) == (5, 2)
            assert (numbers("queue_length", model="m"), numbers("upstream_connections", model="m")) == (3, 2)
        await server.wait_until_idle()
        await spin_until(lambda: not server.services.websockets)
        numbers = await scrape(server)
    for name in ("open_streams", "open_sockets", "queue_length", "upstream_connections"):
        assert numbers(name) == 0
    assert numbers("inferences_total", code="cancelled") == 5


@async_test
async def test_metrics_count_retries_and_fallbacks_of_failing_model(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.response = error_response(500)
        models = {
            "m": upstream_model(up.base_url, fallback=["spare"], **QUICK),
            "spare": scripted_model("say:a; usage:1,2"),
        }
        async with running_server(tmp_path, models=models, stages=STAGES) as server:
            answers = [await server.post("/api/models/m", HI) for _ in range(4)]
            numbers = await scrape(server)
    assert [answer.json["metadata"]["fallback_from"] for answer in answers] == ["m"] * 4
    assert len(up.requests) == 12
    assert numbers.by_label("retries_total", "model") == {"m": 8}
    assert numbers.by_label("fallbacks_total", "model") == {"m": 4}
    assert numbers.by_label("tokens_total", "model") == {"spare": 12}
    assert numbers("inferences_total", model="m", code="ok") == 4
    assert numbers("upstream_connections") == 0


@async_test
async def test_metrics_breaker_state_is_one_of_three(tmp_path: Path) -> None:
    breaker = {"failures": 2, "seconds": 0.2}
    async with Upstream() as up:
        models = {"m": upstream_model(up.base_url, retry={"attempts": 1}, breaker=breaker)}
        async with running_server(tmp_path, models=models, stages=STAGES) as server:
            assert (await scrape(server)).by_label("breaker_state", "state") == {"closed": 1}
            up.response = error_response(500)
            for _ in range(2):
                await server.post("/api/models/m", HI)
            assert (await scrape(server)).by_label("breaker_state", "state") == {"open": 1}
            while (await scrape(server)).by_label("breaker_state", "state") != {"half_open": 1}:
                pass
            up.response = stream_response(["a"])
            assert (await server.post("/api/models/m", HI)).status == 200
            assert (await scrape(server)).by_label("breaker_state", "state") == {"closed": 1}


@async_test
async def test_metrics_count_aborted_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_LAG", 20_000)
    monkeypatch.setattr(event_log, "LAG_TIMEOUT", 0.1)
    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:200000")}) as server,
        open_raw_websocket(server) as connection,
    ):
        await connection.send_message(op="infer", id="a", model="m", text="hi")
        await wait_until(lambda: server.services.streams.aborted_readers)
        assert (await scrape(server))("readers_cut_total") == 1


@async_test
async def test_metrics_count_preset_changes(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        path = tmp_path / "presets" / "models" / "m.yaml"
        for content, change in [("provider: [", "rejected"), ("provider: x\nmodel: y\n", "changed")]:
            path.write_text(content)
            while not (await scrape(server))("preset_changes_total", kind="model", change=change):
                pass
        path.unlink()
        while not (await scrape(server))("preset_changes_total", kind="model", change="removed"):
            pass


@async_test
async def test_metrics_labels_have_no_client_values(tmp_path: Path) -> None:
    rng = random.Random(4)  # noqa: S311 - names for a test

    async def ask(server: RunningServer, number: int) -> None:
        name = f"{rng.randbytes(6).hex()}{number}"
        match number % 4:
            case 0:
                await server.post(f"/api/models/{name}", HI)
            case 1:
                await server.post("/api/multi-inference", {**HI, "models": [name, "ok"]})
            case 2:
                await server.get(f"/{name}/{name}?{name}={name}")
            case _:
                await server.request(name.upper(), f"/api/models/{name}", headers={"X-Request-Id": name})

    async with running_server(tmp_path, models=INFER_OP, stages=STAGES) as server:
        for begin in range(0, 1000, 100):
            await asyncio.gather(*(ask(server, number) for number in range(begin, begin + 100)))
        numbers = await scrape(server)
    assert numbers("http_requests_total") == 1000
    assert set(numbers.values_of("http_requests_total", "method")) == {"GET", "POST", "other"}
    assert len(set(numbers.values_of("http_requests_total", "address"))) == 3
    models = {sample.labels["model"] for sample in numbers.samples if "model" in sample.labels}
    assert models == set(INFER_OP)
    assert len(numbers.samples) < 100


@async_test
async def test_metrics_require_api_key(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=INFER_OP, environ={"FORGELINE_API_KEYS": "secret-key"}) as server:
        check_error(await server.get("/metrics"), 401, "unauthorized")
        answer = await server.get("/metrics", **{"X-API-Key": "secret-key"})
        assert answer.status == 200
        assert b"secret" not in answer.content


class GaugeStage:
    """A stage with gauges whose names the server and another stage use."""

    def __init__(self, options: Any, context: Context) -> None: ...

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        return await proceed(inference)

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        yield Measurement("jobs", "Not those of the server.", 7)
        yield Measurement("inferences", "Not those of the server.", 7, type="counter")
        yield Measurement("queue_length", "Not those of the stage limit.", 7, {"lane": "fast"})
        yield Measurement("lanes", "Lanes.", 7, {"lane": "fast"})


@async_test
async def test_metrics_skip_gauges_of_plugin_with_used_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins.STAGES, "lanes", GaugeStage)
    models = {"m": scripted_model("echo"), "n": scripted_model("echo")}
    stages = ["route_model", "limit", "lanes", "invoke", "normalize_envelope"]
    async with running_server(tmp_path, models=models, stages=stages) as server:
        numbers = await scrape(server)
    names = [family.name for family in numbers.families]
    assert sorted(names) == sorted(set(names))
    assert numbers.by_label("lanes", "model") == {"m": 7, "n": 7}
    assert (numbers("jobs"), numbers("inferences_total"), numbers("queue_length")) == (0, 0, 0)
