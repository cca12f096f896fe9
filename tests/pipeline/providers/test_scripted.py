"""The scripted provider: it plays the script of the preset."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.errors import ForgelineError, ModelError, RateLimited, Unavailable
from pipeline.messages import Finish, ModelTarget, Reasoning, ResponsePart, Usage
from pipeline.stage import Context
from tests.async_tests import async_test
from tests.pipeline.factories import create_provider
from tests.pipeline.providers.helpers import collect_parts, make_inference, make_target, read_parts

FINAL_PARTS = [Finish("end_turn"), Usage(None, None)]


def script_target(steps: str) -> ModelTarget:
    return make_target(provider="scripted", model=steps)


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        ("say:Hello there,  world", ["Hello ", "there,  ", "world", *FINAL_PARTS]),
        ("echo", ["Hi ", "you", *FINAL_PARTS]),
        ("chunks:3", ["tok0 ", "tok1 ", "tok2 ", *FINAL_PARTS]),
        ("think:hm; say:Yes", [Reasoning("hm"), "Yes", *FINAL_PARTS]),
        ("pause:0.001; say:a; pause:0.001; say:b;", ["a", "b", *FINAL_PARTS]),
        ("say:a; stop:max_tokens; usage:3,4", ["a", Finish("max_tokens"), Usage(3, 4)]),
        ("say:a b; unstreamed; say: c", ["a b c", *FINAL_PARTS]),
        ("perhaps:1,say:a; perhaps:0,say:b; perhaps:1,perhaps:1,say:c", ["a", "c", *FINAL_PARTS]),
        ("", FINAL_PARTS),
    ],
)
@async_test
async def test_script_plays_steps_in_order(steps: str, parts: list[ResponsePart]) -> None:
    provider = create_provider("scripted")
    assert await collect_parts(provider, script_target(steps), make_inference(text="Hi you")) == parts
    assert (provider.calls, provider.open_responses, provider.cancelled) == (1, 0, 0)


@async_test
async def test_script_failure_before_first_chunk_is_raised_by_open() -> None:
    with pytest.raises(RateLimited):
        await create_provider("scripted").open(script_target("pause:0; fail:rate_limited; say:never"), make_inference())


@async_test
async def test_script_failure_after_first_chunk_is_raised_by_response() -> None:
    provider = create_provider("scripted")
    response = await provider.open(script_target("say:a; fail:model_error"), make_inference())
    with pytest.raises(ModelError):
        await read_parts(response)
    assert (provider.open_responses, provider.cancelled) == (0, 0)


@async_test
async def test_cancel_hanging_call_is_counted() -> None:
    provider = create_provider("scripted")
    call = asyncio.create_task(provider.open(script_target("hang"), make_inference()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (provider.calls, provider.open_responses, provider.cancelled) == (1, 0, 1)


@async_test
async def test_close_response_early_is_counted_once() -> None:
    provider = create_provider("scripted")
    response = await provider.open(script_target("chunks:1000000"), make_inference())
    assert provider.open_responses == 1
    await response.aclose()
    await response.aclose()
    assert (provider.open_responses, provider.cancelled) == (0, 1)


@pytest.mark.parametrize(
    "steps", ["sing:la", "pause:soon", "fail:whale", "chunks:-1", "usage:1", "stop:now", "hang:1", "perhaps:2,say:a"]
)
@async_test
async def test_invalid_script_step_is_unavailable_and_named(steps: str) -> None:
    provider = create_provider("scripted")
    with pytest.raises(Unavailable, match=steps):
        await provider.open(script_target(steps), make_inference())
    availability = await provider.availability(script_target(steps).preset)
    assert availability.status == "unavailable"
    assert steps in (availability.reason or "")


@pytest.mark.parametrize("code", ["invalid_request", "unavailable", "model_not_deployed", "unknown_model", "cancelled"])
@async_test
async def test_script_fail_raises_error_with_given_code(code: str) -> None:
    with pytest.raises(ForgelineError) as caught:
        await create_provider("scripted").open(script_target(f"fail:{code}"), make_inference())
    assert caught.value.code == code


def test_create_rejects_options() -> None:
    with pytest.raises(ValueError, match="speed"):
        create_provider("scripted", {"speed": 1}, Context())
