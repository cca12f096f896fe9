"""Stock botocore accepts SageMaker's runtime of the endpoint, and meets each of its faults as botocore documents it."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.async_tests import async_test
from tests.aws import Aws, error_response, stream_exception, text_response
from tests.aws.boto_client import BotoClient, catch_error

GEMMA = "gemma-3-4b-it"
SAGEMAKER_ERRORS = [
    ("InternalFailure", 500),
    ("ServiceUnavailable", 503),
    ("ValidationError", 400),
    ("ModelError", 424),
    ("InternalDependencyException", 530),
    ("ModelNotReadyException", 429),
]


@async_test
async def test_endpoint_responds_whole_and_in_payload_parts() -> None:
    async with Aws() as aws:
        deployment = await aws.deploy_emd(GEMMA)
        client = BotoClient(aws, "sagemaker-runtime")
        aws.responses[f"{GEMMA}/dev"] = text_response("Hel", "lo", part_sizes=[3, 50], stop_reason="max_tokens")
        whole = json.loads(await client.invoke_endpoint(EndpointName=deployment.endpoint, Body=b"{}"))
        assert whole["choices"][0] == {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "length",
        }
        assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        read = await client.invoke_endpoint_with_response_stream(EndpointName=deployment.endpoint, Body=b"{}")
        lines = [json.loads(line) for line in read.splitlines()]
        deltas = [line["choices"][0]["delta"] for line in lines if line["choices"]]
        assert deltas == [{"content": "Hel"}, {"content": "lo"}, {}]
        assert lines[-1]["usage"]["total_tokens"] == 5
        aws.responses[f"{GEMMA}/dev"] = text_response("Hel", sse=True, done=True)
        read = await client.invoke_endpoint_with_response_stream(EndpointName=deployment.endpoint, Body=b"{}")
        assert read.startswith(b"data: {")
        assert read.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("code", "status"), SAGEMAKER_ERRORS)
@async_test
async def test_sagemaker_error_has_documented_status(code: str, status: int) -> None:
    async with Aws() as aws:
        deployment = await aws.deploy_emd(GEMMA)
        aws.response = error_response(code, "as told", OriginalStatusCode=500, OriginalMessage="CUDA out of memory")
        client = BotoClient(aws, "sagemaker-runtime")
        with pytest.raises(ClientError) as caught:
            await client.invoke_endpoint(EndpointName=deployment.endpoint, Body=b"{}")
        assert caught.value.response["Error"] == {"Code": code, "Message": "as told"}
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        if code == "ModelError":
            assert caught.value.response["OriginalStatusCode"] == 500
            assert caught.value.response["OriginalMessage"] == "CUDA out of memory"


@pytest.mark.parametrize("member", ["ModelStreamError", "InternalStreamFailure"])
@async_test
async def test_sagemaker_stream_exceptions(member: str) -> None:
    async with Aws() as aws:
        deployment = await aws.deploy_emd(GEMMA)
        aws.response = text_response("Hel", stream_exception(member, "broke", ErrorCode="StreamBroken"))
        call = BotoClient(aws, "sagemaker-runtime").invoke_endpoint_with_response_stream
        assert await catch_error(call(EndpointName=deployment.endpoint, Body=b"{}")) == (0, member, "broke")


@async_test
async def test_missing_endpoint_and_large_body_are_rejected() -> None:
    async with Aws() as aws:
        deployment = await aws.deploy_emd(GEMMA)
        client = BotoClient(aws, "sagemaker-runtime")
        status, code, text = await catch_error(client.invoke_endpoint(EndpointName="none", Body=b"{}"))
        assert (status, code, "Endpoint none" in text) == (400, "ValidationError", True)
        large = await catch_error(client.invoke_endpoint(EndpointName=deployment.endpoint, Body=bytes(6_291_457)))
        assert large[:2] == (413, "ValidationError")
        await client.invoke_endpoint(EndpointName=deployment.endpoint, Body=bytes(6_291_456))
