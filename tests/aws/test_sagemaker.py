"""Stock botocore accepts SageMaker's runtime of the endpoint, and meets each of its faults as botocore documents it."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.aio import asynchronous
from tests.aws import Aws, fails, raises, says
from tests.aws.client import Boto, refusal

GEMMA = "gemma-3-4b-it"
SAGEMAKER_ROWS = [
    ("InternalFailure", 500),
    ("ServiceUnavailable", 503),
    ("ValidationError", 400),
    ("ModelError", 424),
    ("InternalDependencyException", 530),
    ("ModelNotReadyException", 429),
]


@asynchronous
async def test_an_endpoint_answers_at_once_and_in_parts() -> None:
    async with Aws() as aws:
        one = await aws.deploy_emd(GEMMA)
        client = Boto(aws, "sagemaker-runtime")
        aws.answers[f"{GEMMA}/dev"] = says("Hel", "lo", parts=[3, 50], stop="max_tokens")
        whole = json.loads(await client.invoke_endpoint(EndpointName=one.endpoint, Body=b"{}"))
        assert whole["choices"][0] == {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "length",
        }
        assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        read = await client.invoke_endpoint_with_response_stream(EndpointName=one.endpoint, Body=b"{}")
        lines = [json.loads(line) for line in read.splitlines()]
        deltas = [line["choices"][0]["delta"] for line in lines if line["choices"]]
        assert deltas == [{"content": "Hel"}, {"content": "lo"}, {}]
        assert lines[-1]["usage"]["total_tokens"] == 5
        aws.answers[f"{GEMMA}/dev"] = says("Hel", sse=True, done=True)
        read = await client.invoke_endpoint_with_response_stream(EndpointName=one.endpoint, Body=b"{}")
        assert read.startswith(b"data: {")
        assert read.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("code", "status"), SAGEMAKER_ROWS)
@asynchronous
async def test_each_sagemaker_error_comes_with_its_documented_status(code: str, status: int) -> None:
    async with Aws() as aws:
        one = await aws.deploy_emd(GEMMA)
        aws.answer = fails(code, "as told", OriginalStatusCode=500, OriginalMessage="CUDA out of memory")
        client = Boto(aws, "sagemaker-runtime")
        with pytest.raises(ClientError) as caught:
            await client.invoke_endpoint(EndpointName=one.endpoint, Body=b"{}")
        assert caught.value.response["Error"] == {"Code": code, "Message": "as told"}
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        if code == "ModelError":
            assert caught.value.response["OriginalStatusCode"] == 500
            assert caught.value.response["OriginalMessage"] == "CUDA out of memory"


@pytest.mark.parametrize("member", ["ModelStreamError", "InternalStreamFailure"])
@asynchronous
async def test_a_sagemaker_stream_breaks_with_its_own_exceptions(member: str) -> None:
    async with Aws() as aws:
        one = await aws.deploy_emd(GEMMA)
        aws.answer = says("Hel", raises(member, "broke", ErrorCode="StreamBroken"))
        call = Boto(aws, "sagemaker-runtime").invoke_endpoint_with_response_stream
        assert await refusal(call(EndpointName=one.endpoint, Body=b"{}")) == (0, member, "broke")


@asynchronous
async def test_an_endpoint_that_is_not_there_and_a_body_that_is_too_large_are_refused() -> None:
    async with Aws() as aws:
        one = await aws.deploy_emd(GEMMA)
        client = Boto(aws, "sagemaker-runtime")
        status, code, text = await refusal(client.invoke_endpoint(EndpointName="none", Body=b"{}"))
        assert (status, code, "Endpoint none" in text) == (400, "ValidationError", True)
        large = await refusal(client.invoke_endpoint(EndpointName=one.endpoint, Body=bytes(6_291_457)))
        assert large[:2] == (413, "ValidationError")
        await client.invoke_endpoint(EndpointName=one.endpoint, Body=bytes(6_291_456))
