"""/metrics: what Prometheus takes, the same numbers that clients counted, and labels without a flood."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import eventlog
from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous, comes_true
from tests.server.checks import check_error
from tests.server.scraping import Numbers, scrape
from tests.serving import Server, asks, says, serving, until
from tests.sockets import raw_socket, talking
from tests.upstream import Upstream, refusal, stream_of

HI = {"text": "hi"}
STAGES = list(DEFAULT_STAGES)
QUICK: dict[str, Any] = {"retry": {"backoff": 0.001}, "breaker": {"failures": 1000}}
TALK = {"ok": says("say:Hello there; usage:3,4"), "bad": says("fail:invalid_request"), "cut": says("say:a; hang")}


@asynchronous
async def test_it_is_what_prometheus_reads_and_named_as_it_should_be(tmp_path: Path) -> None:
    async with serving(tmp_path, models=TALK, stages=STAGES) as server:
        await server.post("/api/models/ok", HI)
        answer = await server.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = Numbers(answer.content.decode()).families
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


@asynchronous
async def test_requests_tokens_and_errors_are_those_that_clients_counted(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    async with serving(tmp_path, models=TALK, stages=STAGES) as server:
        for path in ["models/ok"] * 5 + ["models/bad"] * 3 + ["models/nobody"] * 2 + ["stream/ok"] * 4:
            seen[str((await server.post(f"/api/{path}", HI)).status)] += 1
        async with talking(server) as talk:
            await talk.say(op="infer", id=1, model="ok", text="hi")
            await talk.whole(1)
            numbers = await scrape(server)
    assert numbers.by("http_requests_total", "status") == {**seen, "101": 1}
    assert numbers("http_requests_total", address="/api/stream/{model_name}", method="POST") == 4
    assert numbers.by("errors_total", "code") == {"invalid_request": 3, "unknown_model": 2}
    assert numbers.by("inferences_total", "code") == {"ok": 10, "invalid_request": 3}
    assert numbers.by("tokens_total", "direction") == {"input": 30, "output": 40}
    for histogram in ("time_to_first_token", "inference_duration", "overhead"):
        assert numbers(f"{histogram}_seconds_count", model="ok") == 10


@asynchronous
async def test_each_model_of_several_counts_for_itself(tmp_path: Path) -> None:
    async with serving(tmp_path, models=TALK, stages=STAGES) as server:
        await server.post("/api/multi-inference", {**HI, "models": ["ok", "bad"]})
        numbers = await scrape(server)
    assert numbers("inferences_total", model="ok", code="ok") == 1
    assert numbers("inferences_total", model="bad", code="invalid_request") == 1
    assert numbers("http_requests_total") == 1


@asynchronous
async def test_times_are_in_seconds_and_our_own_part_is_small(tmp_path: Path) -> None:
    models = {"m": says("pause:0.2; say:a; pause:0.2; say:b")}
    async with serving(tmp_path, models=models, stages=STAGES) as server:
        await server.post("/api/models/m", HI)
        numbers = await scrape(server)
    assert 0.2 <= numbers("time_to_first_token_seconds_sum", model="m") < 0.4
    assert 0.4 <= numbers("inference_duration_seconds_sum", model="m") < 1
    assert 0 < numbers("overhead_seconds_sum", model="m") < 0.1


@asynchronous
async def test_what_is_open_is_told_while_it_is_and_is_0_again_after(tmp_path: Path) -> None:
    models = {"m": says("say:a; hang", concurrency={"calls": 2, "queue": 8})}
    async with serving(tmp_path, models=models, stages=STAGES) as server:
        async with talking(server) as talk, talking(server):
            for number in range(5):
                await talk.say(op="infer", id=number, model="m", text="hi")
            await until(lambda: server.services.streams.running == 5)
            await until(lambda: server.scripted.replies == 2)
            numbers = await scrape(server)
            assert (numbers("open_streams"), numbers("open_sockets")) == (5, 2)
            assert (numbers("queue_length", model="m"), numbers("upstream_connections", model="m")) == (3, 2)
        await server.ended()
        await until(lambda: not server.services.sockets)
        numbers = await scrape(server)
    for name in ("open_streams", "open_sockets", "queue_length", "upstream_connections"):
        assert numbers(name) == 0
    assert numbers("inferences_total", code="cancelled") == 5


@asynchronous
async def test_retries_and_fallbacks_are_counted_by_the_model_that_failed(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.answer = refusal(500)
        models = {"m": asks(up.base_url, fallback=["spare"], **QUICK), "spare": says("say:a; usage:1,2")}
        async with serving(tmp_path, models=models, stages=STAGES) as server:
            answers = [await server.post("/api/models/m", HI) for _ in range(4)]
            numbers = await scrape(server)
    assert [answer.json["metadata"]["fallback_from"] for answer in answers] == ["m"] * 4
    assert len(up.requests) == 12
    assert numbers.by("retries_total", "model") == {"m": 8}
    assert numbers.by("fallbacks_total", "model") == {"m": 4}
    assert numbers.by("tokens_total", "model") == {"spare": 12}
    assert numbers("inferences_total", model="m", code="ok") == 4
    assert numbers("upstream_connections") == 0


@asynchronous
async def test_the_breaker_s_state_is_one_of_three(tmp_path: Path) -> None:
    breaker = {"failures": 2, "seconds": 0.2}
    async with Upstream() as up:
        models = {"m": asks(up.base_url, retry={"attempts": 1}, breaker=breaker)}
        async with serving(tmp_path, models=models, stages=STAGES) as server:
            assert (await scrape(server)).by("breaker_state", "state") == {"closed": 1}
            up.answer = refusal(500)
            for _ in range(2):
                await server.post("/api/models/m", HI)
            assert (await scrape(server)).by("breaker_state", "state") == {"open": 1}
            while (await scrape(server)).by("breaker_state", "state") != {"half_open": 1}:
                pass
            up.answer = stream_of(["a"])
            assert (await server.post("/api/models/m", HI)).status == 200
            assert (await scrape(server)).by("breaker_state", "state") == {"closed": 1}


@asynchronous
async def test_readers_that_were_cut_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_LAG", 20_000)
    monkeypatch.setattr(eventlog, "PATIENCE", 0.1)
    async with serving(tmp_path, models={"m": says("chunks:200000")}) as server, raw_socket(server) as line:
        await line.say(op="infer", id="a", model="m", text="hi")
        await comes_true(lambda: server.services.streams.readers_cut)
        assert (await scrape(server))("readers_cut_total") == 1


@asynchronous
async def test_presets_that_changed_or_were_rejected_are_counted(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        path = tmp_path / "presets" / "models" / "m.yaml"
        for content, change in [("provider: [", "rejected"), ("provider: x\nmodel: y\n", "changed")]:
            path.write_text(content)
            while not (await scrape(server))("preset_changes_total", kind="model", change=change):
                pass
        path.unlink()
        while not (await scrape(server))("preset_changes_total", kind="model", change="removed"):
            pass


@asynchronous
async def test_no_name_that_a_client_makes_up_becomes_a_label(tmp_path: Path) -> None:
    rng = random.Random(4)  # noqa: S311 - names for a test

    async def ask(server: Server, number: int) -> None:
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

    async with serving(tmp_path, models=TALK, stages=STAGES) as server:
        for begin in range(0, 1000, 100):
            await asyncio.gather(*(ask(server, number) for number in range(begin, begin + 100)))
        numbers = await scrape(server)
    assert numbers("http_requests_total") == 1000
    assert set(numbers.values_of("http_requests_total", "method")) == {"GET", "POST", "other"}
    assert len(set(numbers.values_of("http_requests_total", "address"))) == 3
    models = {sample.labels["model"] for sample in numbers.samples if "model" in sample.labels}
    assert models == set(TALK)
    assert len(numbers.samples) < 100


@asynchronous
async def test_it_needs_a_key_where_keys_are_configured(tmp_path: Path) -> None:
    async with serving(tmp_path, models=TALK, environ={"FORGELINE_API_KEYS": "secret-key"}) as server:
        check_error(await server.get("/metrics"), 401, "unauthorized")
        answer = await server.get("/metrics", **{"X-API-Key": "secret-key"})
        assert answer.status == 200
        assert b"secret" not in answer.content
