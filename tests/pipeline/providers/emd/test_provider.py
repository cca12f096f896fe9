"""The emd provider against an AWS-shaped endpoint: requests and responses of both transports."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, ModelError, ModelNotDeployed, Unavailable
from pipeline.media.frames import Frame
from pipeline.messages import Finish, Message, ModelResponse, Parameters, Reasoning
from pipeline.providers.emd.invocation import MAX_BODY_BYTES
from tests.async_tests import async_test, within_deadline
from tests.aws import error_response, reasoning, text_response
from tests.pipeline.providers.emd.helpers import (
    GEMMA,
    MODEL_KEY,
    NOT_DEPLOYED_MESSAGE,
    WITHOUT_STREAM,
    EmdFixture,
    deployed_emd,
    emd_fixture,
)
from tests.pipeline.providers.helpers import FINAL_PARTS, collect_parts, make_inference, read_parts

INVOKE_STREAM, INVOKE, ROUTER = "InvokeEndpointWithResponseStream", "InvokeEndpoint", "ChatCompletions"
both_transports = pytest.mark.parametrize("service", ["sagemaker_realtime", "ecs"])
PARTS_WITHOUT_USAGE = ["Hello", " world", Finish("end_turn")]


def sent_body(emd: EmdFixture, operation: str) -> dict[str, Any]:
    """The body of the one call of this operation."""
    (request,) = [request for request in emd.aws.requests if request.operation == operation]
    body: dict[str, Any] = request.body if isinstance(request.body, dict) else json.loads(request.body)
    return body


async def open_response(emd: EmdFixture) -> ModelResponse:
    return await emd.provider.open(emd.target, make_inference())


# --- SageMaker -------------------------------------------------------------------------------------


@async_test
async def test_sagemaker_request_goes_to_stack_endpoint_without_model() -> None:
    turn = Message("user", (Frame(b"picture", "png", 1, 1), "What?"))
    async with deployed_emd() as emd:
        await emd.aws.deploy_emd(GEMMA, endpoint="a-name-of-its-own")
        request = make_inference(
            turn, system="Be kind.", parameters=Parameters(max_tokens=7, temperature=None, stop=("END",))
        )
        assert (await collect_parts(emd.provider, emd.target, request))[:3] == PARTS_WITHOUT_USAGE
        url = "data:image/png;base64," + base64.b64encode(b"picture").decode()
        assert sent_body(emd, INVOKE_STREAM) == {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}],
                },
            ],
            "max_tokens": 7,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        (call,) = [request for request in emd.aws.requests if request.operation == INVOKE_STREAM]
        assert call.target == "a-name-of-its-own"
        assert call.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("sizes", [None, [1], [3, 50], [10_000]])
@async_test
async def test_sagemaker_lines_split_over_payload_parts_are_whole(sizes: list[int] | None) -> None:
    async with deployed_emd(text_response("Hello", " wörld ", "…", part_sizes=sizes)) as emd:
        assert await collect_parts(emd.provider, emd.target) == ["Hello", " wörld ", "…", *FINAL_PARTS]


@async_test
async def test_sagemaker_sse_lines_and_reasoning_are_parsed() -> None:
    async with deployed_emd(text_response(reasoning("Hm."), "Hello", sse=True, done=True)) as emd:
        assert await collect_parts(emd.provider, emd.target) == [Reasoning("Hm."), "Hello", *FINAL_PARTS]


@async_test
async def test_model_without_stream_capability_is_called_without_stream() -> None:
    async with deployed_emd(capabilities=WITHOUT_STREAM) as emd:
        response = await open_response(emd)
        assert not response.streamed
        assert await read_parts(response) == ["Hello world", *FINAL_PARTS]
        assert sent_body(emd, INVOKE)["stream"] is False
        assert emd.aws.calls[INVOKE_STREAM] == 0


@async_test
async def test_sagemaker_body_over_limit_is_not_sent() -> None:
    big = Message("user", (Frame(b"", "png", 1, 1, base64="A" * MAX_BODY_BYTES),))
    async with deployed_emd() as emd:
        with pytest.raises(InvalidRequest, match=r"SageMaker takes 6,291,456\. Send fewer or smaller pictures"):
            await emd.provider.open(emd.target, make_inference(big))
        assert emd.aws.calls[INVOKE_STREAM] == 0


@async_test
async def test_sagemaker_body_at_limit_is_sent() -> None:
    async with deployed_emd() as emd:
        await collect_parts(emd.provider, emd.target, make_inference(text=""))
        (call,) = [request for request in emd.aws.requests if request.operation == INVOKE_STREAM]
        room = MAX_BODY_BYTES - int(call.headers["Content-Length"])
        assert (await collect_parts(emd.provider, emd.target, make_inference(text="a" * room)))[
            :3
        ] == PARTS_WITHOUT_USAGE
        with pytest.raises(InvalidRequest):
            await emd.provider.open(emd.target, make_inference(text="a" * (room + 1)))


# --- ECS -------------------------------------------------------------------------------------------


@async_test
async def test_router_request_has_model_tag_and_api_key() -> None:
    async with deployed_emd(service="ecs", key="made-up-key") as emd:
        assert (await collect_parts(emd.provider, emd.target))[:3] == PARTS_WITHOUT_USAGE
        assert sent_body(emd, ROUTER)["model"] == MODEL_KEY
        (call,) = [request for request in emd.aws.requests if request.operation == ROUTER]
        assert call.headers["Authorization"] == "Bearer made-up-key"


@async_test
async def test_router_request_without_api_key_reads_secret_once() -> None:
    async with deployed_emd(service="ecs") as emd:
        for _ in range(2):
            await collect_parts(emd.provider, emd.target)
        assert not [request for request in emd.aws.requests if "Authorization" in request.headers and not request.key]
        assert emd.aws.calls["GetSecretValue"] == 1


@async_test
async def test_router_api_key_is_reread_after_401() -> None:
    async with deployed_emd(service="ecs", key="old") as emd:
        await collect_parts(emd.provider, emd.target)
        await emd.aws.deploy_emd(GEMMA, service="ecs", key="new")
        assert (await collect_parts(emd.provider, emd.target))[:3] == PARTS_WITHOUT_USAGE
        assert emd.aws.calls["GetSecretValue"] == 2


@async_test
async def test_unreadable_secret_fails_only_models_with_api_key() -> None:
    denied = error_response("AccessDeniedException", "User: arn:aws:iam::123456789012:user/x is not authorized")
    async with deployed_emd(service="ecs") as emd:
        emd.aws.enqueue("GetSecretValue", denied)
        assert (await collect_parts(emd.provider, emd.target))[:3] == PARTS_WITHOUT_USAGE
        await emd.aws.deploy_emd(GEMMA, service="ecs", key="new")
        emd.aws.enqueue("GetSecretValue", denied, denied)
        with pytest.raises(Unavailable, match="EMD's router wants a key for") as caught:
            await open_response(emd)
        assert "123456789012" not in caught.value.message


@async_test
async def test_api_key_rejected_by_router_is_unavailable_and_not_shown() -> None:
    async with deployed_emd(service="ecs", key="made-up-key") as emd:
        await collect_parts(emd.provider, emd.target)
        emd.aws.response = error_response("", "Unauthorized", 401)
        with pytest.raises(Unavailable, match="refused the key that EMD-APIKey-Secrets holds") as caught:
            await open_response(emd)
        assert "made-up-key" not in caught.value.message


# --- both ------------------------------------------------------------------------------------------


@both_transports
@async_test
async def test_open_returns_at_first_chunk_before_end_of_stream(service: str) -> None:
    gate = asyncio.Event()
    async with deployed_emd(text_response("Hello", gate, " world"), service) as emd:
        response = await open_response(emd)
        assert (response.id, response.model, response.streamed) == ("chatcmpl-1", GEMMA, True)
        parts = aiter(response)
        assert await anext(parts) == ["Hello"]
        gate.set()
        assert [part async for batch in parts for part in batch][:2] == PARTS_WITHOUT_USAGE[1:]
        await response.aclose()


@both_transports
@async_test
async def test_close_response_ends_upstream_request(service: str) -> None:
    async with deployed_emd(text_response("Hello", asyncio.Event()), service) as emd:
        await (await open_response(emd)).aclose()
        await within_deadline(emd.aws.wait_until_idle())


@both_transports
@async_test
async def test_cancel_open_ends_upstream_request(service: str) -> None:
    async with deployed_emd(text_response(asyncio.Event()), service) as emd:
        opening = asyncio.create_task(emd.provider.open(emd.target, make_inference()))
        await within_deadline(emd.aws.wait_for_calls(1, INVOKE_STREAM if service == "sagemaker_realtime" else ROUTER))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await within_deadline(emd.aws.wait_until_idle())


EVERY_BYTE = [range(cut_at, cut_at + 300) for cut_at in range(0, 1500, 300)]


@pytest.mark.parametrize(
    "cuts", [range(1, 1500, 23), *(pytest.param(cuts, marks=pytest.mark.slow) for cuts in EVERY_BYTE)]
)
@both_transports
@async_test
async def test_connection_cut_at_any_byte_gives_whole_response_or_model_error(service: str, cuts: range) -> None:
    whole_responses = 0
    async with deployed_emd(service=service) as emd:
        for cut_at in cuts:
            emd.aws.response = text_response("Hello", " world", cut_at=cut_at)
            with suppress(ModelError):
                assert (await collect_parts(emd.provider, emd.target))[:3] == PARTS_WITHOUT_USAGE
                whole_responses += 1
    assert whole_responses or cuts.stop < 1500


@async_test
async def test_many_concurrent_streams_are_whole_on_both_transports() -> None:
    gate = asyncio.Event()
    for service in ("sagemaker_realtime", "ecs"):
        async with deployed_emd(text_response("Hello", gate, " world"), service) as emd:
            responses = await asyncio.gather(*(open_response(emd) for _ in range(60)))
            gate.set()
            assert [(await read_parts(response))[:3] for response in responses] == [PARTS_WITHOUT_USAGE] * 60


@async_test
async def test_sagemaker_async_deployment_is_unavailable() -> None:
    async with deployed_emd(service="sagemaker_async") as emd:
        with pytest.raises(Unavailable, match="can't be asked: it is deployed as sagemaker_async"):
            await open_response(emd)
        assert (await emd.provider.availability(emd.models["gemma"])).status == "unavailable"


# --- not up ----------------------------------------------------------------------------------------


@async_test
async def test_not_deployed_model_is_an_error_with_deploy_command() -> None:
    async with emd_fixture() as emd:
        await emd.aws.bootstrap_emd()
        with pytest.raises(ModelNotDeployed) as caught:
            await open_response(emd)
        assert caught.value.message == NOT_DEPLOYED_MESSAGE
        availability = await emd.provider.availability(emd.models["gemma"])
        assert (availability.status, availability.reason) == ("not_deployed", NOT_DEPLOYED_MESSAGE)


@pytest.mark.parametrize(
    ("status", "suffix"),
    [
        ("InProgress", "  # it is being deployed (Build)"),
        ("Failed", "  # its deployment failed (Build)"),
        ("DELETE_IN_PROGRESS", "  # its stack is DELETE_IN_PROGRESS"),
        ("ROLLBACK_COMPLETE", "  # its stack is ROLLBACK_COMPLETE: The primary container did not pass the ping"),
    ],
)
@async_test
async def test_deploy_command_is_followed_by_deployment_status(status: str, suffix: str) -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, status=status)
        with pytest.raises(ModelNotDeployed) as caught:
            await open_response(emd)
        assert caught.value.message == NOT_DEPLOYED_MESSAGE + suffix


@both_transports
@async_test
async def test_model_removed_since_last_refresh_is_not_deployed_at_once(service: str) -> None:
    async with deployed_emd(service=service) as emd:
        await collect_parts(emd.provider, emd.target)
        await emd.aws.undeploy_emd(GEMMA)
        with pytest.raises(ModelNotDeployed) as caught:
            await open_response(emd)
        assert caught.value.message == NOT_DEPLOYED_MESSAGE
        assert await emd.status() == "not_deployed"
        assert emd.changed_models == ["gemma", "gemma"]


@async_test
async def test_stack_without_endpoint_is_reported() -> None:
    async with deployed_emd() as emd:
        emd.aws.enqueue(MODEL_KEY, error_response("ValidationError", "Endpoint x of account 123456789012 not found."))
        with pytest.raises(ModelNotDeployed) as caught:
            await open_response(emd)
        assert caught.value.message == (
            f"{NOT_DEPLOYED_MESSAGE}  # its stack EMD-Model-gemma-3-4b-it stands,"
            " but EMD-Model-gemma-3-4b-it-endpoint is not there"
        )
