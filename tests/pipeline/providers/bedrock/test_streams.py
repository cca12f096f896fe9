"""Bedrock streams cut at every byte, and many concurrent ones: whole or a ModelError, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from pipeline.errors import ModelError
from pipeline.messages import Finish, ModelTarget, ResponsePart, Usage
from pipeline.providers.bedrock.provider import BedrockProvider
from tests.async_tests import async_test, within_deadline
from tests.aws import RecordedRequest, text_response
from tests.aws.bedrock import event_messages
from tests.aws.scripted_responses import TextResponse
from tests.pipeline.providers.bedrock.helpers import aws_and_provider
from tests.pipeline.providers.helpers import FINAL_PARTS, collect_parts, make_inference

WORDS = ["Hello", " wörld \U0001f600"]
SHARDS = 4  # tests that share the byte positions, so that each keeps its deadline on a busy machine


def encode_stream(response: TextResponse) -> bytes:
    return b"".join(piece for piece in event_messages(response) if isinstance(piece, bytes))


STREAM_BYTES = encode_stream(text_response(*WORDS))
TEXT_START = len(encode_stream(text_response(stop_reason=None, usage=None)))  # bytes before the first text
STOP_REASON_END = len(encode_stream(text_response(*WORDS, usage=None)))  # bytes up to the stop reason


def cut_connection(request: RecordedRequest) -> TextResponse:
    """The connection is lost after as many bytes as the text of the request says."""
    return text_response(*WORDS, cut_at=int(request.body["messages"][0]["content"][0]["text"]))


def end_early(request: RecordedRequest) -> TextResponse:
    """The response ends after as many bytes as the text of the request says, without an error."""
    byte_count = int(request.body["messages"][0]["content"][0]["text"])
    return text_response(
        {"messageStart": {"role": "assistant"}}, STREAM_BYTES[TEXT_START:byte_count], stop_reason=None, usage=None
    )


async def parts_or_error(
    provider: BedrockProvider, target: ModelTarget, byte_count: int
) -> list[ResponsePart] | ModelError:
    try:
        return await collect_parts(provider, target, make_inference(text=str(byte_count)))
    except ModelError as error:
        return error


@pytest.mark.parametrize("turn", range(SHARDS))
@pytest.mark.parametrize("responder", [cut_connection, end_early])
@async_test
async def test_stream_cut_at_any_byte_is_whole_or_model_error(responder: object, turn: int) -> None:
    cuts = range((1 if responder is cut_connection else TEXT_START) + turn, len(STREAM_BYTES), SHARDS)
    async with aws_and_provider(responder) as (aws, provider, target):  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*(parts_or_error(provider, target, byte_count) for byte_count in cuts))
        await within_deadline(aws.wait_until_idle())
        assert await parts_or_error(provider, target, len(STREAM_BYTES) + 1) == [*WORDS, *FINAL_PARTS]
    for byte_count, response in zip(cuts, outcomes, strict=True):
        assert isinstance(response, ModelError) or response == [*WORDS, Finish("end_turn"), Usage(None, None)], (
            byte_count
        )
        assert isinstance(response, ModelError) or byte_count >= STOP_REASON_END, byte_count
    assert {*map(type, outcomes)} == {list, ModelError}


@pytest.mark.parametrize("block", [1, 2, 7, 100])
@async_test
async def test_stream_in_small_blocks_is_whole(block: int) -> None:
    async with aws_and_provider(text_response(*WORDS, block_size=block)) as (_, provider, target):
        assert await collect_parts(provider, target) == [*WORDS, *FINAL_PARTS]


@async_test
async def test_stream_waits_for_usage_after_stop() -> None:
    gate = asyncio.Event()
    stop = {"messageStop": {"stopReason": "max_tokens"}}
    metadata = {
        "metadata": {"usage": {"inputTokens": 8, "outputTokens": 9, "totalTokens": 17}, "metrics": {"latencyMs": 1}}
    }
    async with aws_and_provider(text_response("a", stop, gate, metadata, stop_reason=None, usage=None)) as (
        aws,
        provider,
        target,
    ):
        reading = asyncio.create_task(collect_parts(provider, target))
        await aws.wait_for_calls(1, "ConverseStream")
        gate.set()
        assert await reading == ["a", Finish("max_tokens"), Usage(8, 9)]


@pytest.mark.parametrize("event", [{"inventedTomorrow": {"a": 1}}, {"contentBlockDelta": {"delta": {"new": {}}}}])
@async_test
async def test_stream_skips_unknown_events(event: dict[str, object]) -> None:
    async with aws_and_provider(text_response("a", event, "b")) as (_, provider, target):
        assert await collect_parts(provider, target) == ["a", "b", *FINAL_PARTS]


async def read_batches(batches: AsyncIterator[Sequence[ResponsePart]], count: int) -> list[ResponsePart]:
    return [part for _ in range(count) for part in await anext(batches)]


@async_test
async def test_200_concurrent_streams_are_whole_while_a_third_is_closed_early() -> None:
    tokens = [f"{number} " for number in range(200)]
    encoded = encode_stream(text_response(*tokens, stop_reason=None, usage=None))[TEXT_START:]
    blocks = [encoded[byte_count : byte_count + 2000] for byte_count in range(0, len(encoded), 2000)]
    async with aws_and_provider(text_response({"messageStart": {"role": "assistant"}}, *blocks)) as (
        aws,
        provider,
        target,
    ):
        responses = await asyncio.gather(*(provider.open(target, make_inference()) for _ in range(200)))

        async def read(number: int) -> bool:
            response, leaves = responses[number], number % 3 == 0
            try:
                parts = aiter(response)
                if leaves:
                    return await read_batches(parts, number % 199 + 1) == tokens[: number % 199 + 1]
                return [part async for batch in parts for part in batch] == [*tokens, *FINAL_PARTS]
            finally:
                await response.aclose()

        assert all(await asyncio.gather(*map(read, range(200))))
        await within_deadline(aws.wait_until_idle())
        assert aws.open_streams == 0
