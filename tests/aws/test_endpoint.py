"""Stock botocore accepts the Converse of the endpoint, and meets each of its faults as botocore documents it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import EventStreamError

from tests.async_tests import async_test
from tests.aws import (
    BAD_CHECKSUM,
    CUT,
    Aws,
    RecordedRequest,
    error_response,
    hanging_response,
    reasoning,
    stream_error,
    stream_exception,
    text_response,
)
from tests.aws.bedrock import event_messages
from tests.aws.boto_client import BotoClient, catch_error

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "us.anthropic.claude-opus-4-7"
NOVA = "us.amazon.nova-lite-v1:0"
PNG = b"\x89PNG\r\n\x1a\n"
REQUEST: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}

BEDROCK_ERRORS = [
    ("ThrottlingException", 429),
    ("ModelNotReadyException", 429),
    ("ServiceUnavailableException", 503),
    ("InternalServerException", 500),
    ("ModelTimeoutException", 408),
    ("ModelErrorException", 424),
    ("ValidationException", 400),
    ("AccessDeniedException", 403),
    ("ResourceNotFoundException", 404),
    ("ServiceQuotaExceededException", 400),
]


def text_of(events: list[dict[str, Any]]) -> str:
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    return "".join(delta.get("text", "") for delta in deltas)


@async_test
async def test_converse_returns_text_and_usage() -> None:
    async with Aws() as aws:
        aws.response = text_response("Hel", reasoning("hm"), "lo", usage={"inputTokens": 7, "cacheReadInputTokens": 5})
        output = await BotoClient(aws, "bedrock-runtime").converse(modelId=CLAUDE, **REQUEST)
        thought, text = output["output"]["message"]["content"]
        assert (thought["reasoningContent"]["reasoningText"]["text"], text) == ("hm", {"text": "Hello"})
        assert output["usage"] == {"inputTokens": 7, "outputTokens": 0, "cacheReadInputTokens": 5, "totalTokens": 12}
        assert output["stopReason"] == "end_turn"
        assert (aws.requests[0].operation, aws.requests[0].target, aws.requests[0].body) == (
            "Converse",
            CLAUDE,
            REQUEST,
        )


@async_test
async def test_converse_stream_sends_scripted_events_in_order() -> None:
    async with Aws() as aws:
        aws.response = text_response(reasoning("hm"), "Hel", "", "lo")
        events = await BotoClient(aws, "bedrock-runtime").converse_stream(modelId=NOVA, **REQUEST)
        names = [next(iter(event)) for event in events]
        delta = ["contentBlockDelta"]
        begins = ["messageStart", *delta, "contentBlockStop", *delta * 3, "contentBlockStop"]
        assert names == [*begins, "messageStop", "metadata"]
        assert text_of(events) == "Hello"
        assert events[-1]["metadata"]["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
        assert (aws.calls["ConverseStream"], aws.open_streams, aws.aborted) == (1, 0, 0)


@pytest.mark.parametrize(("code", "status"), BEDROCK_ERRORS)
@async_test
async def test_bedrock_error_has_documented_status(code: str, status: int) -> None:
    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime")
        aws.responses[CLAUDE] = error_response(code, "as told")
        assert await catch_error(client.converse(modelId=CLAUDE, **REQUEST)) == (status, code, "as told")
        assert await catch_error(client.converse_stream(modelId=CLAUDE, **REQUEST)) == (status, code, "as told")


@async_test
async def test_enqueued_responses_come_before_default() -> None:
    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime", retries={"mode": "standard", "total_max_attempts": 3})
        aws.enqueue(CLAUDE, error_response("ThrottlingException"), text_response("second"))
        assert text_of(await client.converse_stream(modelId=CLAUDE, **REQUEST)) == "second"
        assert text_of(await client.converse_stream(modelId=CLAUDE, **REQUEST)) == "Hello world"
        assert aws.calls["ConverseStream"] == 3


@pytest.mark.parametrize(
    "member",
    [
        "internalServerException",
        "modelStreamErrorException",
        "validationException",
        "throttlingException",
        "serviceUnavailableException",
    ],
)
@async_test
async def test_stream_exception_has_lower_camel_code(member: str) -> None:
    async with Aws() as aws:
        aws.response = text_response("Hel", stream_exception(member, "broke"))
        with pytest.raises(EventStreamError) as caught:
            await BotoClient(aws, "bedrock-runtime").converse_stream(modelId=CLAUDE, **REQUEST)
        assert caught.value.response == {"Error": {"Code": member, "Message": "broke"}}
        code = member[0].upper() + member[1:]
        assert (await catch_error(BotoClient(aws, "bedrock-runtime").converse(modelId=CLAUDE, **REQUEST)))[1:] == (
            code,
            "broke",
        )


@async_test
async def test_unmodelled_error_and_bad_checksum_are_raised() -> None:
    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime")
        aws.response = text_response("Hel", stream_error("Strange", "never seen"))
        assert await catch_error(client.converse_stream(modelId=CLAUDE, **REQUEST)) == (0, "Strange", "never seen")
        aws.response = text_response("Hel", BAD_CHECKSUM, "lo")
        with pytest.raises(ChecksumMismatch):
            await client.converse_stream(modelId=CLAUDE, **REQUEST)


@async_test
async def test_unknown_event_is_skipped_by_botocore() -> None:
    async with Aws() as aws:
        aws.response = text_response("Hel", {"novelty": {"n": 1}}, "lo", stop_reason=None, usage=None)
        events = await BotoClient(aws, "bedrock-runtime").converse_stream(modelId=CLAUDE, **REQUEST)
        assert text_of(events) == "Hello"
        assert not any("novelty" in event for event in events)
        assert not any("messageStop" in event or "metadata" in event for event in events)


@pytest.mark.parametrize("block", [None, 1])
@async_test
async def test_cut_stream_raises_after_whole_events(block: int | None) -> None:
    messages = [piece for piece in event_messages(text_response("Hel", "lo")) if isinstance(piece, bytes)]
    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime")
        for cut in [len(messages[0]), len(b"".join(messages[:2])) + 3, len(b"".join(messages)) - 1]:
            aws.response = text_response("Hel", "lo", cut_at=cut, block_size=block)
            events: list[Any] = []
            with pytest.raises(Exception, match=r"(?i)connection|incomplete|read|prematurely"):
                await asyncio.to_thread(_read_into, events, client, CLAUDE)
            is_whole = [len(b"".join(messages[:count])) <= cut for count in range(1, len(messages) + 1)]
            assert len(events) <= sum(is_whole)


def _read_into(events: list[Any], client: BotoClient, model: str) -> None:
    for event in client.client.converse_stream(modelId=model, **REQUEST)["stream"]:
        events.append(event)  # noqa: PERF402 - what came before the error is wanted


@async_test
async def test_gate_delays_first_token_and_closed_stream_is_counted_as_aborted() -> None:
    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime")
        gate = asyncio.Event()
        aws.response = text_response(gate, "late")
        reading = asyncio.create_task(client.converse_stream(modelId=CLAUDE, **REQUEST))
        await aws.wait_for_calls(1, "ConverseStream")
        assert aws.open_streams == 1
        gate.set()
        assert text_of(await reading) == "late"
        aws.response = text_response("Hel", asyncio.Event())
        await asyncio.to_thread(_read_one, client)
        await aws.wait_until_idle()
        assert (aws.open_streams, aws.aborted) == (0, 1)


def _read_one(client: BotoClient) -> None:
    stream = client.client.converse_stream(modelId=CLAUDE, **REQUEST)["stream"]
    next(iter(stream))
    stream.close()
    client.client.close()


@async_test
async def test_hanging_call_ends_by_client_timeout() -> None:
    async with Aws() as aws:
        aws.response = hanging_response()
        with pytest.raises(Exception, match="Read timeout"):
            await BotoClient(aws, "bedrock-runtime", read_timeout=0.1).converse(modelId=CLAUDE, **REQUEST)
        await aws.wait_until_idle()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": REQUEST["messages"], "inferenceConfig": {"temperature": 0.5}}, "`temperature` is deprecated"),
        ({"messages": []}, "must start with a user message"),
        ({"messages": [{"role": "assistant", "content": [{"text": "hi"}]}]}, "must start with a user message"),
        ({"messages": REQUEST["messages"] * 2}, "must alternate"),
        ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "messages.0.content.0 is blank"),
        ({**REQUEST, "inferenceConfig": {"maxTokens": 999_999}}, "exceeds the model limit"),
    ],
)
@async_test
async def test_model_rejects_what_the_real_model_rejects(body: dict[str, Any], message: str) -> None:
    async with Aws() as aws:
        status, code, text = await catch_error(BotoClient(aws, "bedrock-runtime").converse(modelId=OPUS, **body))
        assert (status, code) == (400, "ValidationException")
        assert message in text


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([("png", PNG)] * 21, "too many images"),
        ([("png", PNG + bytes(3_750_000))], "exceeds the maximum"),
        ([("jpeg", PNG)], "appears to be a image/png"),
        ([("png", b"nonsense")], "Could not process image"),
    ],
)
@async_test
async def test_pictures_over_limits_are_rejected(images: list[tuple[str, bytes]], message: str) -> None:
    content = [{"image": {"format": kind, "source": {"bytes": data}}} for kind, data in images]
    request = {"messages": [{"role": "user", "content": content}]}
    async with Aws() as aws:
        status, code, text = await catch_error(BotoClient(aws, "bedrock-runtime").converse(modelId=CLAUDE, **request))
        assert (status, code) == (400, "ValidationException")
        assert message in text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({**REQUEST, "temperature": 1}, "#: extraneous key [temperature] is not permitted"),
        ({"messages": "hi"}, "#/messages: expected type: JSONArray, found: String"),
        ({"messages": [{"content": [{"text": "hi"}]}]}, "#/messages/0: required key [role] not found"),
        ({**REQUEST, "inferenceConfig": {"temperature": "1"}}, "#/inferenceConfig/temperature: expected type: Number"),
        ({**REQUEST, "inferenceConfig": {"temperature": 1.5}}, "expected maximum value: 1"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "#/messages/0/content/0: exactly one key is expected"),
    ],
)
@async_test
async def test_body_outside_service_model_is_malformed(body: Any, message: str) -> None:
    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime", parameter_validation=False)
        client.client.meta.events.register("before-sign.bedrock-runtime", _replaced(body))
        status, code, text = await catch_error(client.converse(modelId=CLAUDE, **REQUEST))
        assert (status, code) == (400, "ValidationException")
        assert message in text


def _replaced(body: Any) -> Any:
    def replace(request: Any, **_: Any) -> None:
        request.data = json.dumps(body).encode()
        request.headers["Content-Length"] = str(len(request.data))

    return replace


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("anthropic.claude-sonnet-4-6", 400, "on-demand throughput isn\u2019t supported"),
        ("us.anthropic.claude-99", 400, "The provided model identifier is invalid."),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", 404, "reached the end of its life"),
    ],
)
@async_test
async def test_model_id_that_is_not_served_is_rejected(model: str, status: int, message: str) -> None:
    async with Aws() as aws:
        refused = await catch_error(BotoClient(aws, "bedrock-runtime").converse(modelId=model, **REQUEST))
        assert (refused[0], message in refused[2]) == (status, True)


@async_test
async def test_response_may_depend_on_request_and_be_cut() -> None:
    def echo(request: RecordedRequest) -> Any:
        return text_response(request.body["messages"][0]["content"][0]["text"])

    async with Aws() as aws:
        client = BotoClient(aws, "bedrock-runtime")
        aws.response = echo
        assert text_of(await client.converse_stream(modelId=CLAUDE, **REQUEST)) == "hi"
        aws.response = text_response("Hel", CUT)
        assert "output" not in await client.converse(modelId=CLAUDE, **REQUEST)
