"""What the tests of the providers ask with: a request, a preset's route, an upstream, and a reply read to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import ForgelineError
from pipeline.messages import Inference, InferenceRequest, Message, Parameters, Part, Reply, Route, Stop, Usage
from pipeline.presets import ModelPreset
from pipeline.providers.openai_compatible import OpenAICompatible, create
from pipeline.stage import Context, Provider
from tests.aio import soon
from tests.upstream import Answer, Upstream

ENDED = [Stop("end_turn"), Usage(3, 2)]  # how an answer of tests/upstream.py ends
KEY = "sk-do-not-show-me"  # made up
PLAIN = ("text",)


def inference(
    *messages: Message, system: str | None = None, parameters: Parameters | None = None, text: str = "Hi"
) -> Inference:
    asked = messages or (Message("user", (text,)),)
    request = InferenceRequest(messages=asked, system=system, parameters=parameters or Parameters())
    return Inference(request, "m", "m", {}, request.messages, request.parameters)


def route(**preset: Any) -> Route:
    return Route("m", ModelPreset(**({"provider": "openai_compatible", "model": "m"} | preset)))


async def ask(provider: Provider, to: Route, asked: Inference | None = None) -> list[Part]:
    """All parts of the answer; the reply is closed."""
    return await read_all(await provider.open(to, asked or inference()))


async def read_all(reply: Reply) -> list[Part]:
    try:
        return [part async for batch in reply for part in batch]
    finally:
        await reply.aclose()


@asynccontextmanager
async def provider() -> AsyncIterator[OpenAICompatible]:
    made = create({}, Context())
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def talking(
    answer: Answer | None = None, **preset: Any
) -> AsyncIterator[tuple[Upstream, OpenAICompatible, Route]]:
    """An upstream that answers so, the provider, and the route from one to the other."""
    async with Upstream() as up, provider() as asking:
        if answer is not None:
            up.answer = answer
        yield up, asking, route(base_url=up.base_url, **preset)


async def failure(answer: Answer, **preset: Any) -> ForgelineError:
    """What `open` raises for this answer. Nothing may stay open behind it."""
    async with talking(answer, **preset) as (up, asking, to):
        with pytest.raises(ForgelineError) as caught:
            await asking.open(to, inference())
        await soon(up.idle())
        return caught.value
