"""Stock botocore accepts the account half: keys and signatures, stacks, executions, secrets; and EMD's router."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from tests.async_tests import async_test
from tests.aws import Aws, Key, error_response, stream_error, text_response
from tests.aws.boto_client import BotoClient
from tests.aws.sigv4 import SignatureRejected, check_signature
from tests.processes import ROOT

GEMMA = "gemma-3-4b-it"
QWEN = "Qwen2-VL-7B-Instruct"
ROLE = "arn:aws:iam::123456789012:role/r"
PIPELINE = "EMD-Env-Pipeline"
MODEL = "us.anthropic.claude-sonnet-4-6"
REQUEST: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bedrock-runtime": ("converse", {"modelId": MODEL, **REQUEST}),
    "sagemaker-runtime": ("invoke_endpoint", {"EndpointName": "EMD-Model-gemma-3-4b-it-endpoint", "Body": b"{}"}),
    "codepipeline": ("list_pipeline_executions", {"pipelineName": PIPELINE}),
    "secretsmanager": ("get_secret_value", {"SecretId": "EMD-APIKey-Secrets"}),
    "sagemaker": ("describe_endpoint", {"EndpointName": "EMD-Model-gemma-3-4b-it-endpoint"}),
    "cloudformation": ("describe_stacks", {}),
    "sts": ("get_caller_identity", {}),
}
REST = {"bedrock-runtime", "sagemaker-runtime"}
QUERY = {"cloudformation", "sts"}


async def catch_error(call: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        await call
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


@pytest.mark.parametrize("service", CALLS)
@async_test
async def test_every_service_checks_access_key(service: str) -> None:
    operation, arguments = CALLS[service]
    status = 400 if service not in REST | QUERY else 403
    codes = ["InvalidSignatureException", "UnrecognizedClientException", "ExpiredTokenException"]
    if service in QUERY:
        codes = ["SignatureDoesNotMatch", "InvalidClientTokenId", "ExpiredToken"]
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA)
        aws.keys["ASIAOLD"] = Key("old", "token", expired=True)
        await getattr(BotoClient(aws, service), operation)(**arguments)
        clients = [
            BotoClient(aws, service, Key("wrong")),
            BotoClient(aws, service, Key("any"), access="AKIAUNKNOWN"),
            BotoClient(aws, service, aws.keys["ASIAOLD"], access="ASIAOLD"),
        ]
        for client, code in zip(clients, codes, strict=True):
            assert await catch_error(getattr(client, operation)(**arguments)) == (status, code)


@async_test
async def test_signature_is_valid_for_one_request_and_15_minutes() -> None:
    async with Aws() as aws:
        await BotoClient(aws, "bedrock-runtime").converse(modelId="amazon.nova-lite-v1:0", **REQUEST)
        request = aws.requests[0]
        path = "/model/amazon.nova-lite-v1%3A0/converse"
        body = json.dumps(request.body).encode()
        check_signature("POST", path, request.headers, body, aws.keys)
        for changed in [("POST", path, body + b" "), ("POST", path + "x", body), ("PUT", path, body)]:
            with pytest.raises(SignatureRejected):
                check_signature(*changed[:2], request.headers, changed[2], aws.keys)
        now = datetime.now(UTC)
        check_signature("POST", path, request.headers, body, aws.keys, now + timedelta(minutes=14))
        with pytest.raises(SignatureRejected, match="Signature expired"):
            check_signature("POST", path, request.headers, body, aws.keys, now + timedelta(minutes=16))


@async_test
async def test_assumed_role_credentials_are_accepted() -> None:
    async with Aws() as aws:
        output = await BotoClient(aws, "sts").assume_role(RoleArn=ROLE, RoleSessionName="session")
        credentials = output["Credentials"]
        key = Key(credentials["SecretAccessKey"], credentials["SessionToken"])
        await BotoClient(aws, "bedrock-runtime", key, credentials["AccessKeyId"]).converse(modelId=MODEL, **REQUEST)
        no_token = BotoClient(aws, "bedrock-runtime", Key(key.secret), credentials["AccessKeyId"])
        assert await catch_error(no_token.converse(modelId=MODEL, **REQUEST)) == (403, "UnrecognizedClientException")


@async_test
async def test_bedrock_checks_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Aws() as aws:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", aws.bearer)
        await BotoClient(aws, "bedrock-runtime", signature_version=None).converse(modelId=MODEL, **REQUEST)
        assert aws.requests[0].headers["Authorization"] == f"Bearer {aws.bearer}"
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "wrong")
        call = BotoClient(aws, "bedrock-runtime", signature_version=None).converse(modelId=MODEL, **REQUEST)
        assert await catch_error(call) == (403, "AccessDeniedException")


@async_test
async def test_stacks_and_executions_are_paginated() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA)
        await aws.add_unrelated(stacks=60, executions=130)
        formation, pipelines = BotoClient(aws, "cloudformation"), BotoClient(aws, "codepipeline")
        aws.page_size = 25
        listed = await formation.paginate("list_stacks", "StackSummaries", StackStatusFilter=["CREATE_COMPLETE"])
        described = await formation.paginate("describe_stacks", "Stacks")
        assert len(listed) == len(described) == 62
        assert {row["StackId"] for row in listed} == {row["StackId"] for row in described}
        assert aws.calls["ListStacks"] == 3
        assert aws.calls["DescribeStacks"] == 2
        rows = await pipelines.paginate("list_pipeline_executions", "pipelineExecutionSummaries", pipelineName=PIPELINE)
        assert len({row["pipelineExecutionId"] for row in rows}) == 131
        assert aws.calls["ListPipelineExecutions"] == 6


@async_test
async def test_deployed_model_is_stack_with_emd_parameters_and_outputs() -> None:
    async with Aws() as aws:
        await aws.deploy_emd("UI-TARS-1.5-7B", tag="blue", key="secret-key", endpoint="mine")
        formation = BotoClient(aws, "cloudformation")
        (stack,) = (await formation.describe_stacks(StackName="EMD-Model-ui-tars-1-5-7b-blue"))["Stacks"]
        credentials = {row["ParameterKey"]: row["ParameterValue"] for row in stack["Parameters"]}
        outputs = {row["OutputKey"]: row["OutputValue"] for row in stack["Outputs"]}
        assert (credentials["ModelId"], credentials["ModelTag"], credentials["APIKey"]) == (
            "UI-TARS-1.5-7B",
            "blue",
            "****",
        )
        assert (outputs["Model"], outputs["SageMakerEndpointName"]) == ("UI-TARS-1.5-7B/blue", "mine")
        assert outputs["BaseURL"] == aws.router_url
        assert "secret-key" not in outputs["ModelAPIKey"]
        keys = (await BotoClient(aws, "secretsmanager").get_secret_value(SecretId="EMD-APIKey-Secrets"))["SecretString"]
        assert json.loads(keys) == {"UI-TARS-1.5-7B/blue": "secret-key"}
        endpoint = await BotoClient(aws, "sagemaker").describe_endpoint(EndpointName="mine")
        assert endpoint["EndpointStatus"] == "InService"
        await aws.undeploy_emd("UI-TARS-1.5-7B", "blue")
        assert await catch_error(formation.describe_stacks(StackName="EMD-Model-ui-tars-1-5-7b-blue")) == (
            400,
            "ValidationError",
        )


@pytest.mark.parametrize(
    ("status", "stage", "execution_status", "current_stage"),
    [
        ("InProgress", "Build", "InProgress", "Build"),
        ("Failed", "Source", "Failed", "Source"),
        ("CREATE_IN_PROGRESS", "Build", "InProgress", "Deploy"),
        ("ROLLBACK_COMPLETE", "Build", "Failed", "Deploy"),
        ("CREATE_COMPLETE", "Build", "Succeeded", "Deploy"),
        ("DELETE_IN_PROGRESS", "Build", "Succeeded", "Deploy"),
    ],
)
@async_test
async def test_execution_has_variables_and_stage(
    status: str, stage: str, execution_status: str, current_stage: str
) -> None:
    async with Aws() as aws:
        await aws.deploy_emd(QWEN, status=status, stage=stage, instance="g5.12xlarge")
        client = BotoClient(aws, "codepipeline")
        (row,) = (await client.list_pipeline_executions(pipelineName=PIPELINE))["pipelineExecutionSummaries"]
        id = row["pipelineExecutionId"]
        execution = (await client.get_pipeline_execution(pipelineName=PIPELINE, pipelineExecutionId=id))[
            "pipelineExecution"
        ]
        variables = {row["name"]: row["resolvedValue"] for row in execution["variables"]}
        assert (variables["ModelId"], variables["InstanceType"]) == (QWEN, "g5.12xlarge")
        assert row["status"] == execution["status"] == execution_status
        actions = await client.list_action_executions(pipelineName=PIPELINE, filter={"pipelineExecutionId": id})
        assert actions["actionExecutionDetails"][0]["stageName"] == current_stage
        states = (await client.get_pipeline_state(name=PIPELINE))["stageStates"]
        assert [state["stageName"] for state in states] == ["Source", "Build", "Deploy"]
        stacks = (await BotoClient(aws, "cloudformation").list_stacks())["StackSummaries"]
        statuses = [stack["StackStatus"] for stack in stacks if stack["StackName"] != "EMD-Env"]
        assert statuses == ([status] if "_" in status else [])


@async_test
async def test_deploy_again_replaces_running_execution() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA, status="InProgress")
        await aws.deploy_emd(GEMMA)
        assert [execution.status for execution in aws.emd.executions] == ["Succeeded"]
        await aws.deploy_emd(GEMMA, status="DELETE_IN_PROGRESS")
        stacks = (await BotoClient(aws, "cloudformation").describe_stacks())["Stacks"]
        assert [stack["StackStatus"] for stack in stacks if stack["StackName"] != "EMD-Env"] == ["DELETE_IN_PROGRESS"]


@async_test
async def test_account_without_emd_has_no_pipeline_or_stack() -> None:
    async with Aws() as aws:
        call = BotoClient(aws, "codepipeline").list_pipeline_executions(pipelineName=PIPELINE)
        assert await catch_error(call) == (400, "PipelineNotFoundException")
        call = BotoClient(aws, "cloudformation").describe_stacks(StackName="EMD-Env")
        assert await catch_error(call) == (400, "ValidationError")


@async_test
async def test_enqueued_error_fails_one_call_of_operation() -> None:
    async with Aws() as aws:
        await aws.bootstrap_emd()
        aws.enqueue("ListStacks", error_response("Throttling", "Rate exceeded"))
        formation = BotoClient(aws, "cloudformation")
        assert await catch_error(formation.list_stacks()) == (400, "Throttling")
        assert len((await formation.list_stacks())["StackSummaries"]) == 1
        aws.enqueue("GetPipelineState", error_response("ThrottlingException"))
        assert await catch_error(BotoClient(aws, "codepipeline").get_pipeline_state(name=PIPELINE)) == (
            400,
            "ThrottlingException",
        )


# --- EMD's router ----------------------------------------------------------------------------------


async def post_to_router(aws: Aws, body: Any, key: str = "k") -> tuple[int, bytes]:
    url = f"{aws.router_url}/v1/chat/completions"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response,
    ):
        return response.status, await response.read()


@async_test
async def test_router_checks_model_and_api_key() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA, service="ecs", key="k")
        await aws.deploy_emd(QWEN, status="InProgress")
        status, content = await post_to_router(aws, {"model": f"{GEMMA}/dev"})
        assert (status, json.loads(content)["model"]) == (200, GEMMA)
        assert (await post_to_router(aws, {"model": GEMMA}))[0] == 200
        assert await post_to_router(aws, {"model": GEMMA}, "wrong") == (
            401,
            b'{"error": "Invalid API key for this model"}',
        )
        assert (await post_to_router(aws, {}))[0] == 400
        assert (await post_to_router(aws, {"model": f"{QWEN}/dev"}))[0] == 404
        aws.enqueue(f"{GEMMA}/dev", error_response("any", "boom", status=503))
        assert await post_to_router(aws, {"model": GEMMA}) == (503, b'{"error": "boom"}')


@async_test
async def test_router_stream_ends_with_or_without_done() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA, service="ecs")
        request = {"model": GEMMA, "stream": True}
        aws.response = text_response("Hel", "lo")
        lines = (await post_to_router(aws, request))[1].decode().strip().split("\n\n")
        assert json.loads(lines[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"
        aws.response = text_response("Hello", stop_reason="tool_calls")
        assert (await post_to_router(aws, request))[1].endswith(b"data: [DONE]\n\n")
        aws.response = text_response("Hel", stream_error("any", "container died"))
        assert (await post_to_router(aws, request))[1].endswith(b'data: {"error": "container died"}\n\n')


@async_test
async def test_demo_prints_exports_and_ends_on_sigterm() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.aws", cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    lines = [await child.stdout.readline()]
    while not lines[-1].startswith(b"unset"):
        lines.append(await child.stdout.readline())
    assert any(line.startswith(b"export AWS_ENDPOINT_URL=http://127.0.0.1:") for line in lines)
    child.terminate()
    assert await child.wait() == 0
