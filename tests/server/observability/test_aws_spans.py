"""Traces that go on into AWS: its signatures stay right, and its discovery stays out of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.async_tests import async_test, slow_async_test, within_deadline
from tests.aws import Aws, error_response
from tests.aws import text_response as answers
from tests.running_server import running_server
from tests.traces import CLIENT_TRACE, TRACEPARENT, InMemorySpans

pytestmark = pytest.mark.usefixtures("no_sdk_warnings")

CLAUDE = "us.anthropic.claude-sonnet-4-6"
HI = {"text": "hi"}


def bedrock_model(*capabilities: str, model: str = CLAUDE) -> dict[str, object]:
    return {"provider": "bedrock", "model": model, "region": "us-west-2", "capabilities": ["text", *capabilities]}


@pytest.mark.parametrize("capabilities", [(), ("stream",)])
@async_test
async def test_aws_span_trace_context_reaches_bedrock_with_valid_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: tuple[str, ...]
) -> None:
    recorded = InMemorySpans()
    async with Aws() as aws:
        aws.apply_environ(monkeypatch)
        aws.response = answers("Hi", usage={"inputTokens": 30, "outputTokens": 4, "cacheReadInputTokens": 7})
        async with running_server(
            tmp_path, models={"claude4": bedrock_model(*capabilities)}, traces=recorded.tracing
        ) as server:
            assert (await server.post("/api/claude4", HI, traceparent=TRACEPARENT)).status == 200
            await server.wait_until_idle()
            (operation,) = aws.requests
    call = recorded.find_one(f"chat {CLAUDE}")
    assert call.is_parent_in(operation.headers)
    assert "traceparent" not in operation.headers["Authorization"]  # a proxy on the way may write its own
    assert call.trace == CLIENT_TRACE
    address = urlsplit(aws.url)
    known = {
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": CLAUDE,
        "gen_ai.usage.input_tokens": 37,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "server.address": address.hostname,
        "server.port": address.port,
    }
    assert known.items() <= call.attributes.items()
    assert ("gen_ai.request.stream" in call.attributes) == bool(capabilities)


@async_test
async def test_aws_span_of_throttled_call_has_code_and_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, account = InMemorySpans(), "123456789012"
    profile = f"arn:aws:bedrock:us-west-2:{account}:application-inference-profile/abc"
    async with Aws() as aws:
        aws.apply_environ(monkeypatch)
        aws.response = error_response("ThrottlingException", f"arn:aws:iam::{account}:user/bob")
        async with running_server(
            tmp_path, models={"claude4": bedrock_model(model=profile)}, traces=recorded.tracing
        ) as server:
            await server.post("/api/claude4", HI)
            await server.wait_until_idle()
    assert recorded.find_one("inference claude4").failed
    assert account not in repr(recorded.spans())


@pytest.mark.parametrize("service", ["sagemaker_realtime", "ecs"])
@slow_async_test
async def test_aws_span_trace_context_reaches_emd_model_not_discovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    recorded = InMemorySpans()
    emd = {"provider": "emd", "model": "gemma-3-4b-it", "region": "us-west-2", "capabilities": ["text", "stream"]}
    async with Aws() as aws:
        aws.apply_environ(monkeypatch)
        await aws.deploy_emd("gemma-3-4b-it", service=service, key="made-up-key" if service == "ecs" else None)
        async with running_server(tmp_path, models={"gemma": emd}, traces=recorded.tracing) as server:
            assert (await server.post("/api/emd/gemma", HI, traceparent=TRACEPARENT)).status == 200
            await server.wait_until_idle()
            await within_deadline(aws.wait_until_idle())
            carried = {operation.service: operation.headers for operation in aws.requests}
    operation = carried.pop("sagemaker" if service == "sagemaker_realtime" else "router")
    assert recorded.find_one("chat gemma-3-4b-it").is_parent_in(operation)
    assert carried
    assert not any("traceparent" in headers for headers in carried.values())
