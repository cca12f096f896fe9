"""What the tests of emd share: tests/aws as the only AWS in this process's environment, and the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import ForgelineError
from pipeline.messages import ModelTarget
from pipeline.presets.models import ModelPreset
from pipeline.providers.emd import discovery
from pipeline.providers.emd.provider import EmdProvider
from pipeline.stage import Context
from tests.async_tests import within_deadline
from tests.aws import Aws
from tests.aws.scripted_responses import Responder
from tests.pipeline.factories import create_provider, make_preset
from tests.pipeline.providers.helpers import make_inference

GEMMA, MODEL_KEY = "gemma-3-4b-it", "gemma-3-4b-it/dev"
WITHOUT_STREAM = ("text", "image")
NOT_DEPLOYED_MESSAGE = (
    "EMD model not deployed. Please deploy using: emd deploy --model-id gemma-3-4b-it --model-tag dev"
    " --instance-type g5.2xlarge --engine-type vllm --service-type sagemaker_realtime"
)


def make_emd_preset(**keys: Any) -> ModelPreset:
    streams = ("text", "image", "stream")
    settings: dict[str, Any] = {"provider": "emd", "model": GEMMA, "region": "us-west-2", "capabilities": streams}
    return make_preset(**(settings | {"deploy": {"instance": "g5.2xlarge"}} | keys))


class EmdFixture:
    """An AWS, the provider, and the presets in force; `changed_models` are the models whose change was announced."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.models = {"gemma": make_emd_preset()}
        self.changed_models: list[str] = []
        self.provider: EmdProvider = create_provider(
            "emd", {}, Context(notify_model_changed=self.changed_models.append, models=lambda: self.models)
        )

    @property
    def target(self) -> ModelTarget:
        return ModelTarget("gemma", self.models["gemma"])

    async def status(self) -> str:
        return (await self.provider.deployment(self.models["gemma"])).status

    async def wait_for_status(self, status: str) -> None:
        """Return when the provider has discovered this status."""
        while await self.status() != status:
            await self.wait_for_refresh()

    async def wait_for_refresh(self) -> None:
        """Return when the next refresh has read the stacks."""
        await within_deadline(self.aws.wait_for_calls(self.aws.calls["DescribeStacks"] + 1, "DescribeStacks"))


@asynccontextmanager
async def emd_fixture(*, refresh_seconds: float = 0.02, **keys: Any) -> AsyncIterator[EmdFixture]:
    """Nothing is deployed. `refresh_seconds` between two refreshes; `keys` are those of the model's preset."""
    async with Aws() as aws:
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            patch.setattr(discovery, "REFRESH_SECONDS", refresh_seconds)
            patch.setattr(discovery, "RETRY_PAUSE_SECONDS", 0.0)
            emd = EmdFixture(aws)
            emd.models["gemma"] = make_emd_preset(**keys)
            try:
                yield emd
            finally:
                await emd.provider.close()


@asynccontextmanager
async def deployed_emd(
    responder: Responder | None = None, service: str = "sagemaker_realtime", key: str | None = None, **keys: Any
) -> AsyncIterator[EmdFixture]:
    """The model is deployed on this service, with this responder; discovery refreshes only once."""
    async with emd_fixture(refresh_seconds=600, **keys) as emd:
        await emd.aws.deploy_emd(GEMMA, service=service, key=key)
        if responder is not None:
            emd.aws.response = responder
        yield emd


async def catch_open_error(responder: Responder, **options: Any) -> ForgelineError:
    """The error that `open` raises for this responder, after one call, which has to end at AWS."""
    async with deployed_emd(responder, **options) as emd:
        with pytest.raises(ForgelineError) as caught:
            await emd.provider.open(emd.target, make_inference())
        await within_deadline(emd.aws.wait_until_idle())
        calls = ("InvokeEndpoint", "InvokeEndpointWithResponseStream", "ChatCompletions")
        assert sum(emd.aws.calls[call] for call in calls) == 1
        return caught.value
