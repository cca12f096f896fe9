"""What the tests of bedrock ask with: tests/aws as the only AWS in this process's environment, and the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import ForgelineError
from pipeline.messages import Route
from pipeline.presets import ModelPreset
from pipeline.providers.bedrock import Bedrock, create
from pipeline.stage import Context
from tests.aio import soon
from tests.aws import Aws
from tests.aws.script import Answer
from tests.pipeline.providers.asking import inference

CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-6", "us.amazon.nova-pro-v1:0"
PLAIN = ("text", "image")


def route(**preset: Any) -> Route:
    streams = ("text", "image", "stream")
    given = {"provider": "bedrock", "model": CLAUDE, "region": "us-west-2", "capabilities": streams} | preset
    return Route("claude4", ModelPreset(**given))


@asynccontextmanager
async def talking(answer: Answer | None = None, **preset: Any) -> AsyncIterator[tuple[Aws, Bedrock, Route]]:
    """An AWS that answers so, the provider, and the route to its model."""
    async with Aws() as aws:
        with pytest.MonkeyPatch.context() as patch:
            aws.apply(patch)
            if answer is not None:
                aws.answer = answer
            provider = create({}, Context())
            try:
                yield aws, provider, route(**preset)
            finally:
                await provider.close()


async def failure(answer: Answer, **preset: Any) -> ForgelineError:
    """What `open` raises for this answer, after one call. Nothing may stay open behind it."""
    async with talking(answer, **preset) as (aws, provider, to):
        with pytest.raises(ForgelineError) as caught:
            await provider.open(to, inference())
        await soon(aws.idle())
        assert len(aws.requests) == 1
        return caught.value
