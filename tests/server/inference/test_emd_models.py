"""The shipped EMD models through the whole server, with AWS configured by environment variables only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.providers.emd import discovery
from tests.async_tests import async_test, within_deadline
from tests.aws import Aws, error_response, stream_error, text_response
from tests.aws.scripted_responses import Responder
from tests.pipeline.media.make_pictures import plain_picture
from tests.processes import ROOT
from tests.running_server import RunningServer, running_server
from tests.server.checks import check_error, check_stream, text_of
from tests.sockets import connect_websocket

EMD_PRESETS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "presets" / "models").glob("*.yaml"))
    if "provider: emd" in path.read_text()
}
HI = {"text": "hi"}
STAGES = ["decode_frames", "route_model", "fit_frames", "limit", "retry", "invoke", "normalize_envelope"]
PICTURE = plain_picture(8, 8).as_base64()
SECRETS = ("123456789012", "AKIAFORGELINETEST000", "made-up-key")

every_model = pytest.mark.parametrize("key", EMD_PRESETS)
every_service = pytest.mark.parametrize("service", ["sagemaker_realtime", "ecs"])


@asynccontextmanager
async def emd_server(
    folder: Path, *deployed: str, service: str = "sagemaker_realtime"
) -> AsyncIterator[tuple[RunningServer, Aws]]:
    """A server with the four shipped models; `deployed` of them are deployed."""
    async with Aws(region="us-east-1") as aws:
        await aws.bootstrap_emd()
        for key in deployed:
            await aws.deploy_emd(
                EMD_PRESETS[key]["model"], service=service, key="made-up-key" if service == "ecs" else None
            )
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            patch.setattr(discovery, "REFRESH_SECONDS", 0.05)
            async with running_server(folder, models=EMD_PRESETS, stages=STAGES) as server:
                yield server, aws
                await server.wait_until_idle()
                await within_deadline(aws.wait_until_idle())


def response_text(envelope: Any) -> Any:
    return envelope["response"]["content"][0]["text"]


def not_deployed_message(key: str) -> str:
    preset = EMD_PRESETS[key]
    return (
        "EMD model not deployed. Please deploy using: emd deploy"
        f" --model-id {preset['model']} --model-tag {preset['tag']} --instance-type {preset['deploy']['instance']}"
        " --engine-type vllm --service-type sagemaker_realtime"
    )


@every_service
@every_model
@async_test
async def test_emd_model_answers_whole_streamed_and_on_websocket(tmp_path: Path, key: str, service: str) -> None:
    async with emd_server(tmp_path, key, service=service) as (server, _):
        envelope = (await server.post(f"/api/emd/{key}", HI)).json
        assert response_text(envelope) == "Hello world"
        assert (envelope["metadata"]["model"], envelope["metadata"]["provider"]) == (key, "emd")
        assert envelope["response"]["stop_reason"] == "end_turn"
        assert envelope["metadata"]["time_to_first_token_ms"] is not None
        events = (await server.post(f"/api/stream/{key}", HI)).events
        assert text_of(check_stream(events)[key]) == "Hello world"
        assert [event["delta"] for event in events if event["type"] == "chunk"] == ["Hello", " world"]
        async with connect_websocket(server) as session:
            await session.send(op="infer", id="a", model=key, **HI)
            assert text_of(check_stream(await session.read_until_complete("a"))[key]) == "Hello world"


@every_model
@async_test
async def test_emd_model_gets_pictures_up_to_its_limit(tmp_path: Path, key: str) -> None:
    limit = EMD_PRESETS[key]["limits"]["frames"]
    async with emd_server(tmp_path, key) as (server, aws):
        assert (await server.post(f"/api/emd/{key}", {"text": "", "frames": [PICTURE] * limit})).status == 200
        (call,) = [request for request in aws.requests if request.operation == "InvokeEndpointWithResponseStream"]
        body = json.loads(call.body) if isinstance(call.body, bytes | str) else call.body
        sent = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
        assert [part["image_url"]["url"] for part in sent] == [f"data:image/png;base64,{PICTURE}"] * limit
        too_many = await server.post(f"/api/emd/{key}", {"text": "", "frames": [PICTURE] * (limit + 1)})
        check_error(too_many, 400, "invalid_request", "frames")


@every_model
@async_test
async def test_not_deployed_emd_model_reports_deploy_command(tmp_path: Path, key: str) -> None:
    async with emd_server(tmp_path) as (server, _):
        event = check_error(await server.post(f"/api/emd/{key}", HI), 503, "model_not_deployed")
        assert event["error"] == not_deployed_message(key)


@async_test
async def test_multi_inference_with_deployed_and_not_deployed_emd_models(tmp_path: Path) -> None:
    names = [*EMD_PRESETS]
    async with emd_server(tmp_path, *names[:2]) as (server, aws):
        await aws.deploy_emd(EMD_PRESETS[names[2]]["model"], status="InProgress")
        results = (await server.post("/api/multi-inference", HI | {"models": names})).json["results"]
        assert [result["model"] for result in results] == names
        assert [result["status"] for result in results] == ["success", "success", "not_deployed", "not_deployed"]
        assert [response_text(result) for result in results[:2]] == ["Hello world"] * 2
        assert results[2]["error"] == not_deployed_message(names[2]) + "  # it is being deployed (Build)"
        assert results[3]["error"] == not_deployed_message(names[3])


@async_test
async def test_emd_model_deployed_at_runtime_is_usable_and_announced_on_feed(tmp_path: Path) -> None:
    async with emd_server(tmp_path) as (server, aws), connect_websocket(server) as session:
        check_error(await server.post("/api/emd/gemma-3-4b", HI), 503, "model_not_deployed")
        await session.send(op="subscribe", id="f", topics=["models"])
        listed = {model["name"]: model for model in (await session.next_event("f"))["models"]}
        assert {model["availability"] for model in listed.values()} == {"not_deployed"}
        for status, availability in [("InProgress", "in_progress"), ("CREATE_COMPLETE", "available")]:
            await aws.deploy_emd("gemma-3-4b-it", status=status)
            event = await within_deadline(session.next_event("f"))
            assert (event["type"], event["name"], event["availability"]) == ("model", "gemma-3-4b", availability)
        assert response_text((await server.post("/api/emd/gemma-3-4b", HI)).json) == "Hello world"
        await aws.undeploy_emd("gemma-3-4b-it")
        event = await within_deadline(session.next_event("f"))
        assert (event["name"], event["availability"]) == ("gemma-3-4b", "not_deployed")


@async_test
async def test_model_list_is_unknown_before_first_discovery_and_feed_updates_it(tmp_path: Path) -> None:
    async with emd_server(tmp_path, "gemma-3-4b") as (server, _), connect_websocket(server) as session:
        await session.send(op="subscribe", id="f", topics=["models"])
        listed = (await session.next_event("f"))["models"]
        assert {model["availability"] for model in listed} == {"unknown"}
        event: dict[str, str] = {}
        while len(event) < len(EMD_PRESETS):
            model = await within_deadline(session.next_event("f"))
            event[model["name"]] = model["availability"]
        assert event == dict.fromkeys(EMD_PRESETS, "not_deployed") | {"gemma-3-4b": "available"}


@async_test
async def test_emd_model_without_credentials_reports_deploy_command_and_sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with emd_server(tmp_path) as (server, _):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        event = await server.post("/api/emd/gemma-3-4b", HI)
        check_error(event, 503, "model_not_deployed", "emd deploy", "No AWS credentials were found", "aws sso login")


@async_test
async def test_emd_model_not_ready_is_retried_then_429(tmp_path: Path) -> None:
    async with emd_server(tmp_path, "gemma-3-4b") as (server, aws):
        busy = error_response("ModelNotReadyException", headers={"Retry-After": "0"})
        aws.enqueue("gemma-3-4b-it/dev", busy)
        assert response_text((await server.post("/api/emd/gemma-3-4b", HI)).json) == "Hello world"
        aws.response = busy
        check_error(await server.post("/api/emd/gemma-3-4b", HI), 429, "rate_limited")
        assert aws.calls["InvokeEndpointWithResponseStream"] == 2 + 3


@async_test
async def test_emd_container_error_is_not_retried(tmp_path: Path) -> None:
    async with emd_server(tmp_path, "gemma-3-4b") as (server, aws):
        aws.response = error_response("ModelError", OriginalStatusCode=500, OriginalMessage="CUDA out of memory")
        check_error(await server.post("/api/emd/gemma-3-4b", HI), 500, "model_error", "CUDA out of memory")
        assert aws.calls["InvokeEndpointWithResponseStream"] == 1


@every_service
@async_test
async def test_emd_errors_leak_no_account_data(tmp_path: Path, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    leaky = " ".join(SECRETS[:2])
    responders: list[Responder] = [
        error_response("InternalFailure", f"boom {leaky}", 500),
        error_response("ValidationError", f"no {leaky}", 400),
        text_response("Hello", stream_error("InternalFailure", f"mid {leaky}")),
        text_response({"error": f"line {leaky}"}),
    ]
    async with emd_server(tmp_path, "gemma-3-4b", service=service) as (server, aws):
        visible = ""
        for response in responders:
            aws.response = response
            visible += (await server.post("/api/emd/gemma-3-4b", HI)).content.decode()
            visible += (await server.post("/api/stream/gemma-3-4b", HI)).content.decode()
        visible += (await server.get("/api/models")).content.decode()
        visible += (await server.get("/api/emd/status")).content.decode()
    out, err = capfd.readouterr()
    assert "boom" in visible
    assert not [secret for secret in SECRETS if secret in visible + out + err]


@pytest.mark.slow
@every_service
@async_test
async def test_100_concurrent_emd_streams_are_whole_while_a_third_of_clients_disconnect(
    tmp_path: Path, service: str
) -> None:
    chunks = [f"w{number} " for number in range(100)]
    async with emd_server(tmp_path, "gemma-3-4b", service=service) as (server, aws):
        aws.response = text_response(*chunks)

        async def ask(number: int) -> None:
            async with server.open_stream("/api/stream/gemma-3-4b", HI) as live:
                if number % 3 == 0:
                    await live.next_event()
                else:
                    assert text_of(check_stream(await live.remaining_events())["gemma-3-4b"]) == "".join(chunks)

        await asyncio.gather(*(ask(number) for number in range(100)))
