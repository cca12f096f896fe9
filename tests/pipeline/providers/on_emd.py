"""What the tests of emd ask with: tests/aws as the only AWS in this process's environment, and the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import ForgelineError
from pipeline.messages import Route
from pipeline.presets import Deploy, ModelPreset
from pipeline.providers import emd_discovery
from pipeline.providers.emd import Emd, create
from pipeline.stage import Context
from tests.aio import soon
from tests.aws import Aws
from tests.aws.script import Answer
from tests.pipeline.providers.asking import inference

GEMMA, NAME = "gemma-3-4b-it", "gemma-3-4b-it/dev"
PLAIN = ("text", "image")
COMMAND = (
    "EMD model not deployed. Please deploy using: emd deploy --model-id gemma-3-4b-it --model-tag dev"
    " --instance-type g5.2xlarge --engine-type vllm --service-type sagemaker_realtime"
)


def preset(**keys: Any) -> ModelPreset:
    streams = ("text", "image", "stream")
    given: dict[str, Any] = {"provider": "emd", "model": GEMMA, "region": "us-west-2", "capabilities": streams}
    return ModelPreset(**(given | {"deploy": Deploy("g5.2xlarge")} | keys))


class World:
    """An AWS, the provider, and the presets in force; `told` are the models whose change was announced."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.models = {"gemma": preset()}
        self.told: list[str] = []
        self.provider: Emd = create({}, Context(announce=self.told.append, models=lambda: self.models))

    @property
    def route(self) -> Route:
        return Route("gemma", self.models["gemma"])

    async def status(self) -> str:
        return (await self.provider.deployment(self.models["gemma"])).status

    async def becomes(self, status: str) -> None:
        """Returns once the provider knows it to be so, by itself."""
        while await self.status() != status:
            await self.looked()

    async def looked(self) -> None:
        """Returns after the next look at the stacks has begun."""
        await soon(self.aws.asked(self.aws.calls["DescribeStacks"] + 1, "DescribeStacks"))


@asynccontextmanager
async def emd(*, seconds: float = 0.02, **keys: Any) -> AsyncIterator[World]:
    """Nothing is deployed. `seconds` are between two looks; `keys` are those of the model's preset."""
    async with Aws() as aws:
        with pytest.MonkeyPatch.context() as patch:
            aws.apply(patch)
            patch.setattr(emd_discovery, "INTERVAL", seconds)
            patch.setattr(emd_discovery, "PAUSE", 0.0)
            world = World(aws)
            world.models["gemma"] = preset(**keys)
            try:
                yield world
            finally:
                await world.provider.close()


@asynccontextmanager
async def talking(
    answer: Answer | None = None, service: str = "sagemaker_realtime", key: str | None = None, **keys: Any
) -> AsyncIterator[World]:
    """The model is deployed by this service, and answers so; one look is enough."""
    async with emd(seconds=600, **keys) as world:
        await world.aws.deploy_emd(GEMMA, service=service, key=key)
        if answer is not None:
            world.aws.answer = answer
        yield world


async def failure(answer: Answer, **how: Any) -> ForgelineError:
    """What `open` raises for this answer, after one call. Nothing may stay open behind it."""
    async with talking(answer, **how) as world:
        with pytest.raises(ForgelineError) as caught:
            await world.provider.open(world.route, inference())
        await soon(world.aws.idle())
        calls = ("InvokeEndpoint", "InvokeEndpointWithResponseStream", "ChatCompletions")
        assert sum(world.aws.calls[call] for call in calls) == 1
        return caught.value
