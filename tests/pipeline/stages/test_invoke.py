"""invoke: call the model, wait for its first chunk, and end an answer that is idle for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import ForgelineError, ModelError, RateLimited, Unavailable
from pipeline.messages import EventStream, Inference, ModelResponse, ResponsePart
from pipeline.stage import Context, Proceed
from tests.async_tests import async_test
from tests.pipeline.factories import FakeProvider, collect, create_stage, make_inference

SHORT_TIMEOUT = 0.02


async def forward_response(inference: Inference) -> EventStream:
    """The next stage: forward the response unchanged."""
    response = inference.call.response
    return EventStream(aiter(response), response.aclose)  # type: ignore[arg-type]  # a response holds a generator


async def invoke(provider: FakeProvider, proceed: Proceed = forward_response, **timeouts: float) -> EventStream:
    return await create_stage("invoke", {}, Context({"fake": provider}))(make_inference(timeouts=timeouts), proceed)


@async_test
async def test_proceed_gets_the_response_and_its_times() -> None:
    inferences: list[Inference] = []

    async def proceed(inference: Inference) -> EventStream:
        inferences.append(inference)
        return await forward_response(inference)

    assert await collect(await invoke(FakeProvider("a", "b"), proceed)) == ["a", "b"]
    call = inferences[0].call
    assert (call.response.id, call.response.model, call.response.streamed) == ("msg_1", "upstream", True)
    assert call.started_at <= call.first_chunk_at


@pytest.mark.parametrize("error", [RateLimited("busy"), ModelError("no"), ValueError("a bug")])
@async_test
async def test_error_before_first_chunk_is_raised_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await invoke(FakeProvider(steps_before=[error]))
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "failed_calls"),
    [(ModelError("500"), 1), (Unavailable("no connection"), 1), (Unavailable("no key", before_call=True), 0)],
)
@async_test
async def test_failed_call_is_counted_unless_it_never_began(error: ForgelineError, failed_calls: int) -> None:
    inference = make_inference()
    with pytest.raises(type(error)):
        await create_stage("invoke", {}, Context({"fake": FakeProvider(steps_before=[error])}))(
            inference, forward_response
        )
    assert inference.failed_calls == failed_calls


@async_test
async def test_guard_that_raises_prevents_the_call() -> None:
    def reject() -> None:
        raise Unavailable("breaker open")

    provider, inference = FakeProvider("a"), replace(make_inference(), call_guards=(lambda: None, reject))
    with pytest.raises(Unavailable, match="breaker open"):
        await create_stage("invoke", {}, Context({"fake": provider}))(inference, forward_response)
    assert (provider.entered.is_set(), inference.failed_calls) == (False, 0)


@async_test
async def test_first_token_timeout_is_unavailable() -> None:
    provider = FakeProvider(steps_before=[asyncio.Event()])
    with pytest.raises(Unavailable, match=r"m did not begin to answer within 0\.02 s"):
        await invoke(provider, first_token=SHORT_TIMEOUT)
    assert provider.close_counter.counts == []


@async_test
async def test_idle_timeout_is_unavailable_after_the_received_chunks() -> None:
    provider = FakeProvider("a", asyncio.Event())
    events = await invoke(provider, between_tokens=SHORT_TIMEOUT)
    assert await anext(aiter(events)) == ["a"]
    with pytest.raises(Unavailable, match=r"m fell silent for 0\.02 s in the middle of its answer"):
        await collect(events)
    assert provider.close_counter.counts == [1]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@async_test
async def test_idle_timeout_ignores_the_time_of_a_slow_reader() -> None:
    received: list[Any] = []
    events = await invoke(FakeProvider("a", "b", "c"), between_tokens=SHORT_TIMEOUT)
    async for batch in events:
        received += batch
        paused = asyncio.Event()
        asyncio.get_running_loop().call_later(2 * SHORT_TIMEOUT, paused.set)
        await paused.wait()
    await events.aclose()
    assert received == ["a", "b", "c"]


@async_test
async def test_idle_timeout_does_not_end_a_slow_answer() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    for number, gate in enumerate(gates, 1):
        asyncio.get_running_loop().call_later(number * SHORT_TIMEOUT, gate.set)
    events = await invoke(FakeProvider("a", *gates, "b"), between_tokens=10.0)
    assert await collect(events) == ["a", "b"]


@async_test
async def test_cancel_while_model_is_idle_propagates_cancel() -> None:
    provider, has_begun = FakeProvider("a", asyncio.Event()), asyncio.Event()

    async def read() -> list[Any]:
        events = await invoke(provider, between_tokens=60.0)
        has_begun.set()
        return await collect(events)

    task = asyncio.create_task(read())
    await has_begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert provider.close_counter.counts == [1]


@async_test
async def test_cancel_during_idle_timeout_propagates_cancel() -> None:
    async def hang() -> AsyncGenerator[Sequence[ResponsePart], None]:
        try:
            await asyncio.Event().wait()
            yield ["never"]
        except asyncio.CancelledError:  # by the idle timeout; now the reader cancels too
            task.cancel()
            raise

    async def read() -> None:
        provider = FakeProvider()
        provider.response = ModelResponse(hang(), streamed=True)
        await collect(await invoke(provider, between_tokens=SHORT_TIMEOUT))

    task = asyncio.create_task(read())
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("error", [ModelError("no"), LookupError("a bug"), asyncio.CancelledError()])
@async_test
async def test_response_is_closed_when_proceed_raises(error: BaseException) -> None:
    async def fail(inference: Inference) -> EventStream:
        raise error

    provider = FakeProvider("a")
    with pytest.raises(type(error)):
        await invoke(provider, fail)
    assert provider.close_counter.counts == [1]


@async_test
async def test_error_after_first_chunk_is_raised_from_the_response() -> None:
    provider = FakeProvider("a", ModelError("cut"))
    events = await invoke(provider)
    with pytest.raises(ForgelineError, match="cut"):
        await collect(events)
    assert provider.close_counter.counts == [1]


@async_test
async def test_close_before_first_part_closes_the_response() -> None:
    provider = FakeProvider("a")
    await (await invoke(provider)).aclose()
    assert provider.close_counter.counts == [1]


@async_test
async def test_empty_answer_is_valid() -> None:
    assert await collect(await invoke(FakeProvider())) == []
