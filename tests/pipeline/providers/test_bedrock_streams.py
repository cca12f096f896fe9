"""Streams of Bedrock's that are cut at every byte, and many at once: whole or a clean error, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from pipeline.errors import ModelError
from pipeline.messages import Part, Route, Stop, Usage
from pipeline.providers.bedrock import Bedrock
from tests.aio import asynchronous, soon
from tests.aws import Asked, says
from tests.aws.bedrock import frames
from tests.aws.script import Says
from tests.pipeline.providers.asking import ENDED, ask, inference
from tests.pipeline.providers.on_bedrock import talking

WORDS = ["Hello", " wörld \U0001f600"]
TURNS = 4  # tests that share the bytes, so that each keeps its deadline on a machine that is busy


def recorded(said: Says) -> bytes:
    return b"".join(piece for piece in frames(said) if isinstance(piece, bytes))


RECORDED = recorded(says(*WORDS))
BEGUN = len(recorded(says(stop=None, usage=None)))  # bytes up to the first text
STOPPED = len(recorded(says(*WORDS, usage=None)))  # bytes that hold all of it, and why it stopped


def lost_at(asked: Asked) -> Says:
    """The connection is lost after as many bytes as the text says."""
    return says(*WORDS, cut_at=int(asked.body["messages"][0]["content"][0]["text"]))


def ended_at(asked: Asked) -> Says:
    """The answer ends there, as if it were whole."""
    at = int(asked.body["messages"][0]["content"][0]["text"])
    return says({"messageStart": {"role": "assistant"}}, RECORDED[BEGUN:at], stop=None, usage=None)


async def outcome(provider: Bedrock, to: Route, at: int) -> list[Part] | ModelError:
    try:
        return await ask(provider, to, inference(text=str(at)))
    except ModelError as error:
        return error


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("answer", [lost_at, ended_at])
@asynchronous
async def test_a_stream_that_is_cut_at_any_byte_is_whole_or_an_error(answer: object, turn: int) -> None:
    cuts = range((1 if answer is lost_at else BEGUN) + turn, len(RECORDED), TURNS)
    async with talking(answer) as (aws, provider, to):  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*(outcome(provider, to, at) for at in cuts))
        await soon(aws.idle())
        assert await outcome(provider, to, len(RECORDED) + 1) == [*WORDS, *ENDED]
    for at, said in zip(cuts, outcomes, strict=True):
        assert isinstance(said, ModelError) or said == [*WORDS, Stop("end_turn"), Usage(None, None)], at
        assert isinstance(said, ModelError) or at >= STOPPED, at
    assert {*map(type, outcomes)} == {list, ModelError}


@pytest.mark.parametrize("block", [1, 2, 7, 100])
@asynchronous
async def test_a_stream_that_trickles_in_is_the_same(block: int) -> None:
    async with talking(says(*WORDS, block=block)) as (_, provider, to):
        assert await ask(provider, to) == [*WORDS, *ENDED]


@asynchronous
async def test_usage_comes_after_the_stop_and_is_waited_for() -> None:
    gate = asyncio.Event()
    stop = {"messageStop": {"stopReason": "max_tokens"}}
    told = {
        "metadata": {"usage": {"inputTokens": 8, "outputTokens": 9, "totalTokens": 17}, "metrics": {"latencyMs": 1}}
    }
    async with talking(says("a", stop, gate, told, stop=None, usage=None)) as (aws, provider, to):
        asking = asyncio.create_task(ask(provider, to))
        await aws.asked(1, "ConverseStream")
        gate.set()
        assert await asking == ["a", Stop("max_tokens"), Usage(8, 9)]


@pytest.mark.parametrize("event", [{"inventedTomorrow": {"a": 1}}, {"contentBlockDelta": {"delta": {"new": {}}}}])
@asynchronous
async def test_events_that_nobody_knows_are_passed_over(event: dict[str, object]) -> None:
    async with talking(says("a", event, "b")) as (_, provider, to):
        assert await ask(provider, to) == ["a", "b", *ENDED]


async def some(batches: AsyncIterator[Sequence[Part]], count: int) -> list[Part]:
    return [part for _ in range(count) for part in await anext(batches)]


@asynchronous
async def test_two_hundred_streams_at_once_are_whole_and_in_order_while_a_third_leaves() -> None:
    tokens = [f"{number} " for number in range(200)]
    coded = recorded(says(*tokens, stop=None, usage=None))[BEGUN:]
    blocks = [coded[at : at + 2000] for at in range(0, len(coded), 2000)]
    async with talking(says({"messageStart": {"role": "assistant"}}, *blocks)) as (aws, provider, to):
        replies = await asyncio.gather(*(provider.open(to, inference()) for _ in range(200)))

        async def read(number: int) -> bool:
            reply, leaves = replies[number], number % 3 == 0
            try:
                parts = aiter(reply)
                if leaves:
                    return await some(parts, number % 199 + 1) == tokens[: number % 199 + 1]
                return [part async for batch in parts for part in batch] == [*tokens, *ENDED]
            finally:
                await reply.aclose()

        assert all(await asyncio.gather(*map(read, range(200))))
        await soon(aws.idle())
        assert aws.streams == 0
