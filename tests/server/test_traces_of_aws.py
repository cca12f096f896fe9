"""Traces that go on into AWS: its signatures stay right, and its discovery stays out of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.aio import asynchronous, soon, unhurried
from tests.aws import Aws, fails
from tests.aws import says as answers
from tests.serving import serving
from tests.traces import CLIENT_TRACE, TRACEPARENT, Kept

pytestmark = pytest.mark.usefixtures("quiet_sdk")

CLAUDE = "us.anthropic.claude-sonnet-4-6"
HI = {"text": "hi"}


def on_bedrock(*capabilities: str, model: str = CLAUDE) -> dict[str, object]:
    return {"provider": "bedrock", "model": model, "region": "us-west-2", "capabilities": ["text", *capabilities]}


@pytest.mark.parametrize("capabilities", [(), ("stream",)])
@asynchronous
async def test_bedrock_gets_the_callers_trace_beside_a_right_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: tuple[str, ...]
) -> None:
    kept = Kept()
    async with Aws() as aws:
        aws.apply(monkeypatch)
        aws.answer = answers("Hi", usage={"inputTokens": 30, "outputTokens": 4, "cacheReadInputTokens": 7})
        async with serving(tmp_path, models={"claude4": on_bedrock(*capabilities)}, traces=kept.tracing) as server:
            assert (await server.post("/api/claude4", HI, traceparent=TRACEPARENT)).status == 200
            await server.ended()
            (asked,) = aws.requests
    call = kept.one(f"chat {CLAUDE}")
    assert call.sent(asked.headers)
    assert "traceparent" not in asked.headers["Authorization"]  # a proxy on the way may write its own
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


@asynchronous
async def test_a_throttled_call_says_so_and_no_account_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, account = Kept(), "123456789012"
    profile = f"arn:aws:bedrock:us-west-2:{account}:application-inference-profile/abc"
    async with Aws() as aws:
        aws.apply(monkeypatch)
        aws.answer = fails("ThrottlingException", f"arn:aws:iam::{account}:user/bob")
        async with serving(tmp_path, models={"claude4": on_bedrock(model=profile)}, traces=kept.tracing) as server:
            await server.post("/api/claude4", HI)
            await server.ended()
    assert kept.one("inference claude4").failed
    assert account not in repr(kept.told())


@pytest.mark.parametrize("service", ["sagemaker_realtime", "ecs"])
@unhurried
async def test_a_model_of_emds_gets_the_callers_trace_and_the_search_for_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    kept = Kept()
    emd = {"provider": "emd", "model": "gemma-3-4b-it", "region": "us-west-2", "capabilities": ["text", "stream"]}
    async with Aws() as aws:
        aws.apply(monkeypatch)
        await aws.deploy_emd("gemma-3-4b-it", service=service, key="made-up-key" if service == "ecs" else None)
        async with serving(tmp_path, models={"gemma": emd}, traces=kept.tracing) as server:
            assert (await server.post("/api/emd/gemma", HI, traceparent=TRACEPARENT)).status == 200
            await server.ended()
            await soon(aws.idle())
            carried = {asked.service: asked.headers for asked in aws.requests}
    asked = carried.pop("sagemaker" if service == "sagemaker_realtime" else "router")
    assert kept.one("chat gemma-3-4b-it").sent(asked)
    assert carried
    assert not any("traceparent" in headers for headers in carried.values())
