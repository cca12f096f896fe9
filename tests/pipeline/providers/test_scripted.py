"""The scripted provider: it plays what stands in the preset."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.errors import ForgelineError, ModelError, RateLimited, Unavailable
from pipeline.messages import Part, Reasoning, Route, Stop, Usage
from pipeline.providers.scripted import Scripted, create
from pipeline.stage import Context
from tests.aio import asynchronous
from tests.pipeline.providers.asking import ask, inference, read_all, route

END = [Stop("end_turn"), Usage(None, None)]


def script(steps: str) -> Route:
    return route(provider="scripted", model=steps)


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        ("say:Hello there,  world", ["Hello ", "there,  ", "world", *END]),
        ("echo", ["Hi ", "you", *END]),
        ("chunks:3", ["tok0 ", "tok1 ", "tok2 ", *END]),
        ("think:hm; say:Yes", [Reasoning("hm"), "Yes", *END]),
        ("pause:0.001; say:a; pause:0.001; say:b;", ["a", "b", *END]),
        ("say:a; stop:max_tokens; usage:3,4", ["a", Stop("max_tokens"), Usage(3, 4)]),
        ("say:a b; unstreamed; say: c", ["a b c", *END]),
        ("perhaps:1,say:a; perhaps:0,say:b; perhaps:1,perhaps:1,say:c", ["a", "c", *END]),
        ("", END),
    ],
)
@asynchronous
async def test_plays_its_steps_in_order(steps: str, parts: list[Part]) -> None:
    provider = Scripted()
    assert await ask(provider, script(steps), inference(text="Hi you")) == parts
    assert (provider.calls, provider.replies, provider.cancelled) == (1, 0, 0)


@asynchronous
async def test_a_failure_before_the_first_chunk_comes_out_of_open() -> None:
    with pytest.raises(RateLimited):
        await Scripted().open(script("pause:0; fail:rate_limited; say:never"), inference())


@asynchronous
async def test_a_failure_after_it_comes_out_of_the_reply() -> None:
    provider = Scripted()
    reply = await provider.open(script("say:a; fail:model_error"), inference())
    with pytest.raises(ModelError):
        await read_all(reply)
    assert (provider.replies, provider.cancelled) == (0, 0)


@asynchronous
async def test_a_hanging_call_that_is_cancelled_is_counted() -> None:
    provider = Scripted()
    call = asyncio.create_task(provider.open(script("hang"), inference()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (provider.calls, provider.replies, provider.cancelled) == (1, 0, 1)


@asynchronous
async def test_a_reply_closed_early_is_counted_once() -> None:
    provider = Scripted()
    reply = await provider.open(script("chunks:1000000"), inference())
    assert provider.replies == 1
    await reply.aclose()
    await reply.aclose()
    assert (provider.replies, provider.cancelled) == (0, 1)


@pytest.mark.parametrize(
    "steps", ["sing:la", "pause:soon", "fail:whale", "chunks:-1", "usage:1", "stop:now", "hang:1", "perhaps:2,say:a"]
)
@asynchronous
async def test_a_script_that_cannot_be_played_is_named(steps: str) -> None:
    provider = Scripted()
    with pytest.raises(Unavailable, match=steps):
        await provider.open(script(steps), inference())
    availability = await provider.availability(script(steps).preset)
    assert availability.status == "unavailable"
    assert steps in (availability.reason or "")


@pytest.mark.parametrize("code", ["invalid_request", "unavailable", "model_not_deployed", "unknown_model", "cancelled"])
@asynchronous
async def test_every_error_can_be_asked_for_by_its_code(code: str) -> None:
    with pytest.raises(ForgelineError) as caught:
        await Scripted().open(script(f"fail:{code}"), inference())
    assert caught.value.code == code


def test_it_takes_no_options() -> None:
    with pytest.raises(ValueError, match="speed"):
        create({"speed": 1}, Context())
