"""invoke: the model is called, its first chunk waited for, and its silences measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from pipeline.errors import ForgelineError, ModelError, RateLimited, Unavailable
from pipeline.messages import Events, Inference, Part, Reply
from pipeline.stage import Context, Proceed
from pipeline.stages.invoke import create
from tests.aio import asynchronous
from tests.pipeline.making import Counted, all_of, asked

SHORT = 0.02


async def tell(inference: Inference) -> Events:
    """What follows: the reply as it is."""
    reply = inference.call.reply
    return Events(aiter(reply), reply.aclose)  # type: ignore[arg-type]  # a reply holds a generator


async def invoked(provider: Counted, proceed: Proceed = tell, **timeouts: float) -> Events:
    return await create({}, Context({"counted": provider}))(asked(timeouts=timeouts), proceed)


@asynchronous
async def test_what_follows_gets_the_reply_and_when_it_began() -> None:
    seen: list[Inference] = []

    async def look(inference: Inference) -> Events:
        seen.append(inference)
        return await tell(inference)

    assert await all_of(await invoked(Counted("a", "b"), look)) == ["a", "b"]
    call = seen[0].call
    assert (call.reply.id, call.reply.model, call.reply.streamed) == ("msg_1", "upstream", True)
    assert call.began <= call.first_chunk


@pytest.mark.parametrize("error", [RateLimited("busy"), ModelError("no"), ValueError("a bug")])
@asynchronous
async def test_an_error_before_the_first_chunk_comes_out_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await invoked(Counted(before=[error]))
    assert caught.value is error


@asynchronous
async def test_a_model_that_does_not_begin_in_time_is_unavailable() -> None:
    provider = Counted(before=[asyncio.Event()])
    with pytest.raises(Unavailable, match=r"m did not begin to answer within 0\.02 s"):
        await invoked(provider, first_token=SHORT)
    assert provider.ledger.closed == []


@asynchronous
async def test_a_model_that_falls_silent_is_unavailable_after_what_it_said() -> None:
    provider = Counted("a", asyncio.Event())
    events = await invoked(provider, between_tokens=SHORT)
    assert await anext(aiter(events)) == ["a"]
    with pytest.raises(Unavailable, match=r"m fell silent for 0\.02 s in the middle of its answer"):
        await all_of(events)
    assert provider.ledger.closed == [1]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@asynchronous
async def test_the_time_that_a_slow_reader_takes_is_no_silence_of_the_model() -> None:
    got: list[Any] = []
    events = await invoked(Counted("a", "b", "c"), between_tokens=SHORT)
    async for batch in events:
        got += batch
        rested = asyncio.Event()
        asyncio.get_running_loop().call_later(2 * SHORT, rested.set)
        await rested.wait()
    await events.aclose()
    assert got == ["a", "b", "c"]


@asynchronous
async def test_a_model_that_goes_on_in_time_is_not_interrupted() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    for number, gate in enumerate(gates, 1):
        asyncio.get_running_loop().call_later(number * SHORT, gate.set)
    events = await invoked(Counted("a", *gates, "b"), between_tokens=10.0)
    assert await all_of(events) == ["a", "b"]


@asynchronous
async def test_who_is_cancelled_while_the_model_is_silent_is_cancelled_and_not_told_of_silence() -> None:
    provider, began = Counted("a", asyncio.Event()), asyncio.Event()

    async def read() -> list[Any]:
        events = await invoked(provider, between_tokens=60.0)
        began.set()
        return await all_of(events)

    task = asyncio.create_task(read())
    await began.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert provider.ledger.closed == [1]


@asynchronous
async def test_who_is_cancelled_in_the_very_moment_of_silence_is_cancelled() -> None:
    async def silent() -> AsyncGenerator[Sequence[Part], None]:
        try:
            await asyncio.Event().wait()
            yield ["never"]
        except asyncio.CancelledError:  # of the silence; now comes that of the reader
            task.cancel()
            raise

    async def read() -> None:
        provider = Counted()
        provider.reply = Reply(silent(), streamed=True)
        await all_of(await invoked(provider, between_tokens=SHORT))

    task = asyncio.create_task(read())
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("error", [ModelError("no"), LookupError("a bug"), asyncio.CancelledError()])
@asynchronous
async def test_the_reply_is_closed_if_what_follows_raises(error: BaseException) -> None:
    async def fail(inference: Inference) -> Events:
        raise error

    provider = Counted("a")
    with pytest.raises(type(error)):
        await invoked(provider, fail)
    assert provider.ledger.closed == [1]


@asynchronous
async def test_an_error_in_the_middle_comes_out_of_the_reply() -> None:
    provider: Counted = Counted("a", ModelError("cut"))
    events = await invoked(provider)
    with pytest.raises(ForgelineError, match="cut"):
        await all_of(events)
    assert provider.ledger.closed == [1]


@asynchronous
async def test_a_close_before_the_first_part_closes_the_reply() -> None:
    provider = Counted("a")
    await (await invoked(provider)).aclose()
    assert provider.ledger.closed == [1]


@asynchronous
async def test_an_empty_answer_is_an_answer() -> None:
    assert await all_of(await invoked(Counted())) == []
