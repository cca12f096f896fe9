"""What the tests of bedrock share: tests/aws as the only AWS in this process's environment, and the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import ForgelineError
from pipeline.messages import ModelTarget
from pipeline.providers.bedrock.provider import BedrockProvider
from pipeline.stage import Context
from tests.async_tests import within_deadline
from tests.aws import Aws
from tests.aws.scripted_responses import Responder
from tests.pipeline.factories import create_provider, make_preset
from tests.pipeline.providers.helpers import make_inference

CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-6", "us.amazon.nova-pro-v1:0"
WITHOUT_STREAM = ("text", "image")


def make_target(**preset: Any) -> ModelTarget:
    streams = ("text", "image", "stream")
    settings = {"provider": "bedrock", "model": CLAUDE, "region": "us-west-2", "capabilities": streams} | preset
    return ModelTarget("claude4", make_preset(**settings))


@asynccontextmanager
async def aws_and_provider(
    responder: Responder | None = None, **preset: Any
) -> AsyncIterator[tuple[Aws, BedrockProvider, ModelTarget]]:
    """An AWS with this responder, the provider, and a target for its model."""
    async with Aws() as aws:
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            if responder is not None:
                aws.response = responder
            provider = create_provider("bedrock", {}, Context())
            try:
                yield aws, provider, make_target(**preset)
            finally:
                await provider.close()


async def catch_open_error(responder: Responder, **preset: Any) -> ForgelineError:
    """The error that `open` raises for this responder, after one call, which has to end at AWS."""
    async with aws_and_provider(responder, **preset) as (aws, provider, target):
        with pytest.raises(ForgelineError) as caught:
            await provider.open(target, make_inference())
        await within_deadline(aws.wait_until_idle())
        assert len(aws.requests) == 1
        return caught.value
