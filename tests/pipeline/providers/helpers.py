"""What the tests of providers share: an inference, a model target, an upstream, and reading a response to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import ForgelineError
from pipeline.messages import (
    Finish,
    Inference,
    InferenceRequest,
    Message,
    ModelResponse,
    ModelTarget,
    Parameters,
    ResponsePart,
    Usage,
)
from pipeline.providers.openai.provider import OpenAICompatibleProvider
from pipeline.stage import Context, Provider
from tests.async_tests import within_deadline
from tests.pipeline.factories import create_provider, make_preset
from tests.upstream import Responder, Upstream

FINAL_PARTS = [Finish("end_turn"), Usage(3, 2)]  # the end of a response of tests/upstream.py
API_KEY = "sk-do-not-show-me"  # not a real key
WITHOUT_STREAM = ("text",)


def make_inference(
    *messages: Message, system: str | None = None, parameters: Parameters | None = None, text: str = "Hi"
) -> Inference:
    request = InferenceRequest(
        messages=messages or (Message("user", (text,)),), system=system, parameters=parameters or Parameters()
    )
    return Inference(request, "m", "m", {}, request.messages, request.parameters)


def make_target(**preset: Any) -> ModelTarget:
    return ModelTarget("m", make_preset(**({"provider": "openai_compatible", "model": "m"} | preset)))


async def collect_parts(
    provider: Provider, target: ModelTarget, inference: Inference | None = None
) -> list[ResponsePart]:
    """All parts of the response, which is closed afterwards."""
    return await read_parts(await provider.open(target, inference or make_inference()))


async def read_parts(response: ModelResponse) -> list[ResponsePart]:
    try:
        return [part async for batch in response for part in batch]
    finally:
        await response.aclose()


@asynccontextmanager
async def openai_provider() -> AsyncIterator[OpenAICompatibleProvider]:
    provider = create_provider("openai_compatible", {}, Context())
    try:
        yield provider
    finally:
        await provider.close()


@asynccontextmanager
async def upstream_and_provider(
    responder: Responder | None = None, **preset: Any
) -> AsyncIterator[tuple[Upstream, OpenAICompatibleProvider, ModelTarget]]:
    """An upstream with this responder, the provider, and a target for the upstream."""
    async with Upstream() as upstream, openai_provider() as provider:
        if responder is not None:
            upstream.response = responder
        yield upstream, provider, make_target(base_url=upstream.base_url, **preset)


async def catch_open_error(responder: Responder, **preset: Any) -> ForgelineError:
    """The error that `open` raises for this responder. The call has to end at the upstream."""
    async with upstream_and_provider(responder, **preset) as (upstream, provider, target):
        with pytest.raises(ForgelineError) as caught:
            await provider.open(target, make_inference())
        await within_deadline(upstream.wait_until_idle())
        return caught.value
