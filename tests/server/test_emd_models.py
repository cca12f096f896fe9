"""The shipped EMD models over the whole server, by nothing but AWS_ENDPOINT_URL and credentials in the environment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.providers import emd_discovery
from tests.aio import asynchronous, soon
from tests.aws import Aws, errs, fails
from tests.aws import says as answers
from tests.aws.script import Answer
from tests.pipeline.drawn import plain
from tests.processes import ROOT
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import Server, serving
from tests.sockets import talking

KEYS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "presets" / "models").glob("*.yaml"))
    if "provider: emd" in path.read_text()
}
HI = {"text": "hi"}
STAGES = ["decode_frames", "route_model", "fit_frames", "limit", "retry", "invoke", "normalize_envelope"]
PICTURE = plain(8, 8).as_base64()
SECRETS = ("123456789012", "AKIAFORGELINETEST000", "made-up-key")

every_key = pytest.mark.parametrize("key", KEYS)
every_service = pytest.mark.parametrize("service", ["sagemaker_realtime", "ecs"])


@asynccontextmanager
async def emd(folder: Path, *deployed: str, service: str = "sagemaker_realtime") -> AsyncIterator[tuple[Server, Aws]]:
    """The server with the four shipped models, of which these are deployed."""
    async with Aws(region="us-east-1") as aws:
        await aws.bootstrap_emd()
        for key in deployed:
            await aws.deploy_emd(KEYS[key]["model"], service=service, key="made-up-key" if service == "ecs" else None)
        with pytest.MonkeyPatch.context() as patch:
            aws.apply(patch)
            patch.setattr(emd_discovery, "INTERVAL", 0.05)
            async with serving(folder, models=KEYS, stages=STAGES) as server:
                yield server, aws
                await server.ended()
                await soon(aws.idle())


def text(envelope: Any) -> Any:
    return envelope["response"]["content"][0]["text"]


def line(key: str) -> str:
    preset = KEYS[key]
    return (
        "EMD model not deployed. Please deploy using: emd deploy"
        f" --model-id {preset['model']} --model-tag {preset['tag']} --instance-type {preset['deploy']['instance']}"
        " --engine-type vllm --service-type sagemaker_realtime"
    )


@every_service
@every_key
@asynchronous
async def test_each_key_answers_whole_streamed_and_on_a_socket(tmp_path: Path, key: str, service: str) -> None:
    async with emd(tmp_path, key, service=service) as (server, _):
        envelope = (await server.post(f"/api/emd/{key}", HI)).json
        assert text(envelope) == "Hello world"
        assert (envelope["metadata"]["model"], envelope["metadata"]["provider"]) == (key, "emd")
        assert envelope["response"]["stop_reason"] == "end_turn"
        assert envelope["metadata"]["time_to_first_token_ms"] is not None
        events = (await server.post(f"/api/stream/{key}", HI)).events
        assert text_of(check_stream(events)[key]) == "Hello world"
        assert [event["delta"] for event in events if event["type"] == "chunk"] == ["Hello", " world"]
        async with talking(server) as talk:
            await talk.say(op="infer", id="a", model=key, **HI)
            assert text_of(check_stream(await talk.whole("a"))[key]) == "Hello world"


@every_key
@asynchronous
async def test_pictures_go_to_each_within_its_limit(tmp_path: Path, key: str) -> None:
    most = KEYS[key]["limits"]["frames"]
    async with emd(tmp_path, key) as (server, aws):
        assert (await server.post(f"/api/emd/{key}", {"text": "", "frames": [PICTURE] * most})).status == 200
        (call,) = [asked for asked in aws.requests if asked.operation == "InvokeEndpointWithResponseStream"]
        body = json.loads(call.body) if isinstance(call.body, bytes | str) else call.body
        sent = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
        assert [part["image_url"]["url"] for part in sent] == [f"data:image/png;base64,{PICTURE}"] * most
        too_many = await server.post(f"/api/emd/{key}", {"text": "", "frames": [PICTURE] * (most + 1)})
        check_error(too_many, 400, "invalid_request", "frames")


@every_key
@asynchronous
async def test_one_that_is_not_up_comes_with_its_own_line(tmp_path: Path, key: str) -> None:
    async with emd(tmp_path) as (server, _):
        told = check_error(await server.post(f"/api/emd/{key}", HI), 503, "model_not_deployed")
        assert told["error"] == line(key)


@asynchronous
async def test_multi_inference_compares_those_that_are_up_with_those_that_are_not(tmp_path: Path) -> None:
    names = [*KEYS]
    async with emd(tmp_path, *names[:2]) as (server, aws):
        await aws.deploy_emd(KEYS[names[2]]["model"], status="InProgress")
        results = (await server.post("/api/multi-inference", HI | {"models": names})).json["results"]
        assert [result["model"] for result in results] == names
        assert [result["status"] for result in results] == ["success", "success", "not_deployed", "not_deployed"]
        assert [text(result) for result in results[:2]] == ["Hello world"] * 2
        assert results[2]["error"] == line(names[2]) + "  # it is being deployed (Build)"
        assert results[3]["error"] == line(names[3])


@asynchronous
async def test_one_that_is_deployed_while_we_run_becomes_usable_and_the_feed_says_so(tmp_path: Path) -> None:
    async with emd(tmp_path) as (server, aws), talking(server) as talk:
        check_error(await server.post("/api/emd/gemma-3-4b", HI), 503, "model_not_deployed")
        await talk.say(op="subscribe", id="f", topics=["models"])
        listed = {model["name"]: model for model in (await talk.next("f"))["models"]}
        assert {model["availability"] for model in listed.values()} == {"not_deployed"}
        for status, availability in [("InProgress", "in_progress"), ("CREATE_COMPLETE", "available")]:
            await aws.deploy_emd("gemma-3-4b-it", status=status)
            told = await soon(talk.next("f"))
            assert (told["type"], told["name"], told["availability"]) == ("model", "gemma-3-4b", availability)
        assert text((await server.post("/api/emd/gemma-3-4b", HI)).json) == "Hello world"
        await aws.undeploy_emd("gemma-3-4b-it")
        told = await soon(talk.next("f"))
        assert (told["name"], told["availability"]) == ("gemma-3-4b", "not_deployed")


@asynchronous
async def test_before_the_first_look_a_listing_says_so_and_the_feed_follows(tmp_path: Path) -> None:
    async with emd(tmp_path, "gemma-3-4b") as (server, _), talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["models"])
        listed = (await talk.next("f"))["models"]
        assert {model["availability"] for model in listed} == {"unknown"}
        told: dict[str, str] = {}
        while len(told) < len(KEYS):
            model = await soon(talk.next("f"))
            told[model["name"]] = model["availability"]
        assert told == dict.fromkeys(KEYS, "not_deployed") | {"gemma-3-4b": "available"}


@asynchronous
async def test_without_credentials_it_is_not_deployed_and_says_how_to_sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with emd(tmp_path) as (server, _):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        told = await server.post("/api/emd/gemma-3-4b", HI)
        check_error(told, 503, "model_not_deployed", "emd deploy", "No AWS credentials were found", "aws sso login")


@asynchronous
async def test_a_model_that_is_not_ready_is_asked_again_and_then_429(tmp_path: Path) -> None:
    async with emd(tmp_path, "gemma-3-4b") as (server, aws):
        busy = fails("ModelNotReadyException", headers={"Retry-After": "0"})
        aws.next("gemma-3-4b-it/dev", busy)
        assert text((await server.post("/api/emd/gemma-3-4b", HI)).json) == "Hello world"
        aws.answer = busy
        check_error(await server.post("/api/emd/gemma-3-4b", HI), 429, "rate_limited")
        assert aws.calls["InvokeEndpointWithResponseStream"] == 2 + 3


@asynchronous
async def test_what_the_container_refused_is_not_asked_again(tmp_path: Path) -> None:
    async with emd(tmp_path, "gemma-3-4b") as (server, aws):
        aws.answer = fails("ModelError", OriginalStatusCode=500, OriginalMessage="CUDA out of memory")
        check_error(await server.post("/api/emd/gemma-3-4b", HI), 500, "model_error", "CUDA out of memory")
        assert aws.calls["InvokeEndpointWithResponseStream"] == 1


@every_service
@asynchronous
async def test_nothing_of_the_account_leaks_into_an_answer_or_a_log_line(
    tmp_path: Path, service: str, capfd: pytest.CaptureFixture[str]
) -> None:
    leaky = " ".join(SECRETS[:2])
    said: list[Answer] = [
        fails("InternalFailure", f"boom {leaky}", 500),
        fails("ValidationError", f"no {leaky}", 400),
        answers("Hello", errs("InternalFailure", f"mid {leaky}")),
        answers({"error": f"line {leaky}"}),
    ]
    async with emd(tmp_path, "gemma-3-4b", service=service) as (server, aws):
        shown = ""
        for answer in said:
            aws.answer = answer
            shown += (await server.post("/api/emd/gemma-3-4b", HI)).content.decode()
            shown += (await server.post("/api/stream/gemma-3-4b", HI)).content.decode()
        shown += (await server.get("/api/models")).content.decode()
        shown += (await server.get("/api/emd/status")).content.decode()
    out, err = capfd.readouterr()
    assert "boom" in shown
    assert not [secret for secret in SECRETS if secret in shown + out + err]


@pytest.mark.slow
@every_service
@asynchronous
async def test_100_streams_at_once_come_whole_and_a_third_that_leave_end_their_calls(
    tmp_path: Path, service: str
) -> None:
    words = [f"w{number} " for number in range(100)]
    async with emd(tmp_path, "gemma-3-4b", service=service) as (server, aws):
        aws.answer = answers(*words)

        async def ask(number: int) -> None:
            async with server.live("/api/stream/gemma-3-4b", HI) as live:
                if number % 3 == 0:
                    await live.next()
                else:
                    assert text_of(check_stream(await live.rest())["gemma-3-4b"]) == "".join(words)

        await asyncio.gather(*(ask(number) for number in range(100)))
