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

from tests.aio import asynchronous
from tests.aws import Aws, Key, errs, fails, says
from tests.aws.client import Boto
from tests.aws.sigv4 import Refused, check
from tests.processes import ROOT

GEMMA = "gemma-3-4b-it"
QWEN = "Qwen2-VL-7B-Instruct"
ROLE = "arn:aws:iam::123456789012:role/r"
PIPELINE = "EMD-Env-Pipeline"
MODEL = "us.anthropic.claude-sonnet-4-6"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bedrock-runtime": ("converse", {"modelId": MODEL, **ASKED}),
    "sagemaker-runtime": ("invoke_endpoint", {"EndpointName": "EMD-Model-gemma-3-4b-it-endpoint", "Body": b"{}"}),
    "codepipeline": ("list_pipeline_executions", {"pipelineName": PIPELINE}),
    "secretsmanager": ("get_secret_value", {"SecretId": "EMD-APIKey-Secrets"}),
    "sagemaker": ("describe_endpoint", {"EndpointName": "EMD-Model-gemma-3-4b-it-endpoint"}),
    "cloudformation": ("describe_stacks", {}),
    "sts": ("get_caller_identity", {}),
}
REST = {"bedrock-runtime", "sagemaker-runtime"}
QUERY = {"cloudformation", "sts"}


async def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        await call
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


@pytest.mark.parametrize("service", CALLS)
@asynchronous
async def test_the_right_key_is_taken_and_a_wrong_one_refused_by_every_service(service: str) -> None:
    operation, arguments = CALLS[service]
    status = 400 if service not in REST | QUERY else 403
    codes = ["InvalidSignatureException", "UnrecognizedClientException", "ExpiredTokenException"]
    if service in QUERY:
        codes = ["SignatureDoesNotMatch", "InvalidClientTokenId", "ExpiredToken"]
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA)
        aws.keys["ASIAOLD"] = Key("old", "token", expired=True)
        await getattr(Boto(aws, service), operation)(**arguments)
        clients = [
            Boto(aws, service, Key("wrong")),
            Boto(aws, service, Key("any"), access="AKIAUNKNOWN"),
            Boto(aws, service, aws.keys["ASIAOLD"], access="ASIAOLD"),
        ]
        for client, code in zip(clients, codes, strict=True):
            assert await refused(getattr(client, operation)(**arguments)) == (status, code)


@asynchronous
async def test_a_signature_is_good_for_its_own_request_and_its_own_time_only() -> None:
    async with Aws() as aws:
        await Boto(aws, "bedrock-runtime").converse(modelId="amazon.nova-lite-v1:0", **ASKED)
        asked = aws.requests[0]
        path = "/model/amazon.nova-lite-v1%3A0/converse"
        body = json.dumps(asked.body).encode()
        check("POST", path, asked.headers, body, aws.keys)
        for changed in [("POST", path, body + b" "), ("POST", path + "x", body), ("PUT", path, body)]:
            with pytest.raises(Refused):
                check(*changed[:2], asked.headers, changed[2], aws.keys)
        now = datetime.now(UTC)
        check("POST", path, asked.headers, body, aws.keys, now + timedelta(minutes=14))
        with pytest.raises(Refused, match="Signature expired"):
            check("POST", path, asked.headers, body, aws.keys, now + timedelta(minutes=16))


@asynchronous
async def test_an_assumed_role_s_credentials_are_taken() -> None:
    async with Aws() as aws:
        answer = await Boto(aws, "sts").assume_role(RoleArn=ROLE, RoleSessionName="session")
        given = answer["Credentials"]
        key = Key(given["SecretAccessKey"], given["SessionToken"])
        await Boto(aws, "bedrock-runtime", key, given["AccessKeyId"]).converse(modelId=MODEL, **ASKED)
        no_token = Boto(aws, "bedrock-runtime", Key(key.secret), given["AccessKeyId"])
        assert await refused(no_token.converse(modelId=MODEL, **ASKED)) == (403, "UnrecognizedClientException")


@asynchronous
async def test_a_bearer_token_is_taken_by_bedrock_if_it_is_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Aws() as aws:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", aws.bearer)
        await Boto(aws, "bedrock-runtime", signature_version=None).converse(modelId=MODEL, **ASKED)
        assert aws.requests[0].headers["Authorization"] == f"Bearer {aws.bearer}"
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "wrong")
        call = Boto(aws, "bedrock-runtime", signature_version=None).converse(modelId=MODEL, **ASKED)
        assert await refused(call) == (403, "AccessDeniedException")


@asynchronous
async def test_stacks_and_executions_come_in_pages_and_all_of_them_come() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA)
        await aws.fill(stacks=60, executions=130)
        formation, pipelines = Boto(aws, "cloudformation"), Boto(aws, "codepipeline")
        aws.page = 25
        listed = await formation.paged("list_stacks", "StackSummaries", StackStatusFilter=["CREATE_COMPLETE"])
        described = await formation.paged("describe_stacks", "Stacks")
        assert len(listed) == len(described) == 62
        assert {row["StackId"] for row in listed} == {row["StackId"] for row in described}
        assert aws.calls["ListStacks"] == 3
        assert aws.calls["DescribeStacks"] == 2
        rows = await pipelines.paged("list_pipeline_executions", "pipelineExecutionSummaries", pipelineName=PIPELINE)
        assert len({row["pipelineExecutionId"] for row in rows}) == 131
        assert aws.calls["ListPipelineExecutions"] == 6


@asynchronous
async def test_a_deployed_model_is_a_stack_with_emd_s_parameters_and_outputs() -> None:
    async with Aws() as aws:
        await aws.deploy_emd("UI-TARS-1.5-7B", tag="blue", key="secret-key", endpoint="mine")
        formation = Boto(aws, "cloudformation")
        (stack,) = (await formation.describe_stacks(StackName="EMD-Model-ui-tars-1-5-7b-blue"))["Stacks"]
        given = {row["ParameterKey"]: row["ParameterValue"] for row in stack["Parameters"]}
        outputs = {row["OutputKey"]: row["OutputValue"] for row in stack["Outputs"]}
        assert (given["ModelId"], given["ModelTag"], given["APIKey"]) == ("UI-TARS-1.5-7B", "blue", "****")
        assert (outputs["Model"], outputs["SageMakerEndpointName"]) == ("UI-TARS-1.5-7B/blue", "mine")
        assert outputs["BaseURL"] == aws.router_url
        assert "secret-key" not in outputs["ModelAPIKey"]
        keys = (await Boto(aws, "secretsmanager").get_secret_value(SecretId="EMD-APIKey-Secrets"))["SecretString"]
        assert json.loads(keys) == {"UI-TARS-1.5-7B/blue": "secret-key"}
        endpoint = await Boto(aws, "sagemaker").describe_endpoint(EndpointName="mine")
        assert endpoint["EndpointStatus"] == "InService"
        await aws.undeploy_emd("UI-TARS-1.5-7B", "blue")
        assert await refused(formation.describe_stacks(StackName="EMD-Model-ui-tars-1-5-7b-blue")) == (
            400,
            "ValidationError",
        )


@pytest.mark.parametrize(
    ("status", "stage", "execution", "at"),
    [
        ("InProgress", "Build", "InProgress", "Build"),
        ("Failed", "Source", "Failed", "Source"),
        ("CREATE_IN_PROGRESS", "Build", "InProgress", "Deploy"),
        ("ROLLBACK_COMPLETE", "Build", "Failed", "Deploy"),
        ("CREATE_COMPLETE", "Build", "Succeeded", "Deploy"),
        ("DELETE_IN_PROGRESS", "Build", "Succeeded", "Deploy"),
    ],
)
@asynchronous
async def test_an_execution_tells_its_variables_and_its_stage(status: str, stage: str, execution: str, at: str) -> None:
    async with Aws() as aws:
        await aws.deploy_emd(QWEN, status=status, stage=stage, instance="g5.12xlarge")
        client = Boto(aws, "codepipeline")
        (row,) = (await client.list_pipeline_executions(pipelineName=PIPELINE))["pipelineExecutionSummaries"]
        id = row["pipelineExecutionId"]
        one = (await client.get_pipeline_execution(pipelineName=PIPELINE, pipelineExecutionId=id))["pipelineExecution"]
        variables = {row["name"]: row["resolvedValue"] for row in one["variables"]}
        assert (variables["ModelId"], variables["InstanceType"]) == (QWEN, "g5.12xlarge")
        assert row["status"] == one["status"] == execution
        actions = await client.list_action_executions(pipelineName=PIPELINE, filter={"pipelineExecutionId": id})
        assert actions["actionExecutionDetails"][0]["stageName"] == at
        states = (await client.get_pipeline_state(name=PIPELINE))["stageStates"]
        assert [state["stageName"] for state in states] == ["Source", "Build", "Deploy"]
        stacks = (await Boto(aws, "cloudformation").list_stacks())["StackSummaries"]
        made = [stack["StackStatus"] for stack in stacks if stack["StackName"] != "EMD-Env"]
        assert made == ([status] if "_" in status else [])


@asynchronous
async def test_deploying_again_takes_the_place_of_what_was_on_its_way() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA, status="InProgress")
        await aws.deploy_emd(GEMMA)
        assert [one.status for one in aws.emd.executions] == ["Succeeded"]
        await aws.deploy_emd(GEMMA, status="DELETE_IN_PROGRESS")
        stacks = (await Boto(aws, "cloudformation").describe_stacks())["Stacks"]
        assert [stack["StackStatus"] for stack in stacks if stack["StackName"] != "EMD-Env"] == ["DELETE_IN_PROGRESS"]


@asynchronous
async def test_an_account_without_emd_has_no_pipeline_and_no_stack() -> None:
    async with Aws() as aws:
        call = Boto(aws, "codepipeline").list_pipeline_executions(pipelineName=PIPELINE)
        assert await refused(call) == (400, "PipelineNotFoundException")
        call = Boto(aws, "cloudformation").describe_stacks(StackName="EMD-Env")
        assert await refused(call) == (400, "ValidationError")


@asynchronous
async def test_any_operation_can_be_told_to_fail_once() -> None:
    async with Aws() as aws:
        await aws.bootstrap_emd()
        aws.next("ListStacks", fails("Throttling", "Rate exceeded"))
        formation = Boto(aws, "cloudformation")
        assert await refused(formation.list_stacks()) == (400, "Throttling")
        assert len((await formation.list_stacks())["StackSummaries"]) == 1
        aws.next("GetPipelineState", fails("ThrottlingException"))
        assert await refused(Boto(aws, "codepipeline").get_pipeline_state(name=PIPELINE)) == (
            400,
            "ThrottlingException",
        )


# --- EMD's router ----------------------------------------------------------------------------------


async def routed(aws: Aws, body: Any, key: str = "k") -> tuple[int, bytes]:
    url = f"{aws.router_url}/v1/chat/completions"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response,
    ):
        return response.status, await response.read()


@asynchronous
async def test_the_router_wants_the_model_with_its_tag_and_its_key() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA, service="ecs", key="k")
        await aws.deploy_emd(QWEN, status="InProgress")
        status, content = await routed(aws, {"model": f"{GEMMA}/dev"})
        assert (status, json.loads(content)["model"]) == (200, GEMMA)
        assert (await routed(aws, {"model": GEMMA}))[0] == 200
        assert await routed(aws, {"model": GEMMA}, "wrong") == (401, b'{"error": "Invalid API key for this model"}')
        assert (await routed(aws, {}))[0] == 400
        assert (await routed(aws, {"model": f"{QWEN}/dev"}))[0] == 404
        aws.next(f"{GEMMA}/dev", fails("any", "boom", status=503))
        assert await routed(aws, {"model": GEMMA}) == (503, b'{"error": "boom"}')


@asynchronous
async def test_the_router_streams_as_it_does_with_and_without_the_last_line() -> None:
    async with Aws() as aws:
        await aws.deploy_emd(GEMMA, service="ecs")
        asked = {"model": GEMMA, "stream": True}
        aws.answer = says("Hel", "lo")
        lines = (await routed(aws, asked))[1].decode().strip().split("\n\n")
        assert json.loads(lines[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"
        aws.answer = says("Hello", stop="tool_calls")
        assert (await routed(aws, asked))[1].endswith(b"data: [DONE]\n\n")
        aws.answer = says("Hel", errs("any", "container died"))
        assert (await routed(aws, asked))[1].endswith(b'data: {"error": "container died"}\n\n')


@asynchronous
async def test_the_demo_prints_what_to_export_and_ends_when_told() -> None:
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
