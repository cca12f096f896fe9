"""Stock botocore accepts the Converse of the endpoint, and meets each of its faults as botocore documents it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import EventStreamError

from tests.aio import asynchronous
from tests.aws import BAD_CHECKSUM, CUT, Asked, Aws, errs, fails, hangs, raises, says, thinks
from tests.aws.bedrock import frames
from tests.aws.client import Boto, refusal

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "us.anthropic.claude-opus-4-7"
NOVA = "us.amazon.nova-lite-v1:0"
PNG = b"\x89PNG\r\n\x1a\n"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}

ROWS = [
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


@asynchronous
async def test_converse_answers_with_the_text_and_the_usage() -> None:
    async with Aws() as aws:
        aws.answer = says("Hel", thinks("hm"), "lo", usage={"inputTokens": 7, "cacheReadInputTokens": 5})
        answer = await Boto(aws, "bedrock-runtime").converse(modelId=CLAUDE, **ASKED)
        thought, said = answer["output"]["message"]["content"]
        assert (thought["reasoningContent"]["reasoningText"]["text"], said) == ("hm", {"text": "Hello"})
        assert answer["usage"] == {"inputTokens": 7, "outputTokens": 0, "cacheReadInputTokens": 5, "totalTokens": 12}
        assert answer["stopReason"] == "end_turn"
        assert (aws.requests[0].operation, aws.requests[0].target, aws.requests[0].body) == ("Converse", CLAUDE, ASKED)


@asynchronous
async def test_converse_stream_tells_in_order_what_the_script_says() -> None:
    async with Aws() as aws:
        aws.answer = says(thinks("hm"), "Hel", "", "lo")
        events = await Boto(aws, "bedrock-runtime").converse_stream(modelId=NOVA, **ASKED)
        names = [next(iter(event)) for event in events]
        delta = ["contentBlockDelta"]
        begins = ["messageStart", *delta, "contentBlockStop", *delta * 3, "contentBlockStop"]
        assert names == [*begins, "messageStop", "metadata"]
        assert text_of(events) == "Hello"
        assert events[-1]["metadata"]["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
        assert (aws.calls["ConverseStream"], aws.streams, aws.aborted) == (1, 0, 0)


@pytest.mark.parametrize(("code", "status"), ROWS)
@asynchronous
async def test_each_bedrock_error_comes_with_its_documented_status(code: str, status: int) -> None:
    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime")
        aws.answers[CLAUDE] = fails(code, "as told")
        assert await refusal(client.converse(modelId=CLAUDE, **ASKED)) == (status, code, "as told")
        assert await refusal(client.converse_stream(modelId=CLAUDE, **ASKED)) == (status, code, "as told")


@asynchronous
async def test_queued_answers_come_one_by_one_before_the_standing_one() -> None:
    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime", retries={"mode": "standard", "total_max_attempts": 3})
        aws.next(CLAUDE, fails("ThrottlingException"), says("second"))
        assert text_of(await client.converse_stream(modelId=CLAUDE, **ASKED)) == "second"
        assert text_of(await client.converse_stream(modelId=CLAUDE, **ASKED)) == "Hello world"
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
@asynchronous
async def test_an_exception_in_mid_stream_comes_with_the_lower_camel_code(member: str) -> None:
    async with Aws() as aws:
        aws.answer = says("Hel", raises(member, "broke"))
        with pytest.raises(EventStreamError) as caught:
            await Boto(aws, "bedrock-runtime").converse_stream(modelId=CLAUDE, **ASKED)
        assert caught.value.response == {"Error": {"Code": member, "Message": "broke"}}
        code = member[0].upper() + member[1:]
        assert (await refusal(Boto(aws, "bedrock-runtime").converse(modelId=CLAUDE, **ASKED)))[1:] == (code, "broke")


@asynchronous
async def test_an_unmodelled_error_and_a_bad_checksum_are_met_as_such() -> None:
    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime")
        aws.answer = says("Hel", errs("Strange", "never seen"))
        assert await refusal(client.converse_stream(modelId=CLAUDE, **ASKED)) == (0, "Strange", "never seen")
        aws.answer = says("Hel", BAD_CHECKSUM, "lo")
        with pytest.raises(ChecksumMismatch):
            await client.converse_stream(modelId=CLAUDE, **ASKED)


@asynchronous
async def test_an_unknown_event_is_no_error_to_botocore() -> None:
    async with Aws() as aws:
        aws.answer = says("Hel", {"novelty": {"n": 1}}, "lo", stop=None, usage=None)
        events = await Boto(aws, "bedrock-runtime").converse_stream(modelId=CLAUDE, **ASKED)
        assert text_of(events) == "Hello"
        assert not any("novelty" in event for event in events)
        assert not any("messageStop" in event or "metadata" in event for event in events)


@pytest.mark.parametrize("block", [None, 1])
@asynchronous
async def test_a_stream_that_is_cut_ends_in_an_error_after_the_events_that_were_whole(block: int | None) -> None:
    coded = [piece for piece in frames(says("Hel", "lo")) if isinstance(piece, bytes)]
    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime")
        for cut in [len(coded[0]), len(b"".join(coded[:2])) + 3, len(b"".join(coded)) - 1]:
            aws.answer = says("Hel", "lo", cut_at=cut, block=block)
            seen: list[Any] = []
            with pytest.raises(Exception, match=r"(?i)connection|incomplete|read|prematurely"):
                await asyncio.to_thread(_read_into, seen, client, CLAUDE)
            whole = [len(b"".join(coded[:count])) <= cut for count in range(1, len(coded) + 1)]
            assert len(seen) <= sum(whole)


def _read_into(seen: list[Any], client: Boto, model: str) -> None:
    for event in client.stock.converse_stream(modelId=model, **ASKED)["stream"]:
        seen.append(event)  # noqa: PERF402 - what came before the error is wanted


@asynchronous
async def test_a_slow_first_token_comes_when_it_is_let_and_a_stalled_stream_is_counted_when_the_client_goes() -> None:
    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime")
        gate = asyncio.Event()
        aws.answer = says(gate, "late")
        reading = asyncio.create_task(client.converse_stream(modelId=CLAUDE, **ASKED))
        await aws.asked(1, "ConverseStream")
        assert aws.streams == 1
        gate.set()
        assert text_of(await reading) == "late"
        aws.answer = says("Hel", asyncio.Event())
        await asyncio.to_thread(_read_one, client)
        await aws.idle()
        assert (aws.streams, aws.aborted) == (0, 1)


def _read_one(client: Boto) -> None:
    stream = client.stock.converse_stream(modelId=CLAUDE, **ASKED)["stream"]
    next(iter(stream))
    stream.close()
    client.stock.close()


@asynchronous
async def test_a_hanging_call_ends_by_the_client_s_own_timeout() -> None:
    async with Aws() as aws:
        aws.answer = hangs()
        with pytest.raises(Exception, match="Read timeout"):
            await Boto(aws, "bedrock-runtime", read_timeout=0.1).converse(modelId=CLAUDE, **ASKED)
        await aws.idle()


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"messages": ASKED["messages"], "inferenceConfig": {"temperature": 0.5}}, "`temperature` is deprecated"),
        ({"messages": []}, "must start with a user message"),
        ({"messages": [{"role": "assistant", "content": [{"text": "hi"}]}]}, "must start with a user message"),
        ({"messages": ASKED["messages"] * 2}, "must alternate"),
        ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "messages.0.content.0 is blank"),
        ({**ASKED, "inferenceConfig": {"maxTokens": 999_999}}, "exceeds the model limit"),
    ],
)
@asynchronous
async def test_a_model_refuses_what_the_real_one_refuses(body: dict[str, Any], wanted: str) -> None:
    async with Aws() as aws:
        status, code, text = await refusal(Boto(aws, "bedrock-runtime").converse(modelId=OPUS, **body))
        assert (status, code) == (400, "ValidationException")
        assert wanted in text


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        ([("png", PNG)] * 21, "too many images"),
        ([("png", PNG + bytes(3_750_000))], "exceeds the maximum"),
        ([("jpeg", PNG)], "appears to be a image/png"),
        ([("png", b"nonsense")], "Could not process image"),
    ],
)
@asynchronous
async def test_pictures_beyond_the_limits_are_refused(images: list[tuple[str, bytes]], wanted: str) -> None:
    content = [{"image": {"format": kind, "source": {"bytes": data}}} for kind, data in images]
    asked = {"messages": [{"role": "user", "content": content}]}
    async with Aws() as aws:
        status, code, text = await refusal(Boto(aws, "bedrock-runtime").converse(modelId=CLAUDE, **asked))
        assert (status, code) == (400, "ValidationException")
        assert wanted in text


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({**ASKED, "temperature": 1}, "#: extraneous key [temperature] is not permitted"),
        ({"messages": "hi"}, "#/messages: expected type: JSONArray, found: String"),
        ({"messages": [{"content": [{"text": "hi"}]}]}, "#/messages/0: required key [role] not found"),
        ({**ASKED, "inferenceConfig": {"temperature": "1"}}, "#/inferenceConfig/temperature: expected type: Number"),
        ({**ASKED, "inferenceConfig": {"temperature": 1.5}}, "expected maximum value: 1"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "#/messages/0/content/0: exactly one key is expected"),
    ],
)
@asynchronous
async def test_a_body_that_the_model_of_the_service_does_not_know_is_malformed(body: Any, wanted: str) -> None:
    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime", parameter_validation=False)
        client.stock.meta.events.register("before-sign.bedrock-runtime", _replaced(body))
        status, code, text = await refusal(client.converse(modelId=CLAUDE, **ASKED))
        assert (status, code) == (400, "ValidationException")
        assert wanted in text


def _replaced(body: Any) -> Any:
    def replace(request: Any, **_: Any) -> None:
        request.data = json.dumps(body).encode()
        request.headers["Content-Length"] = str(len(request.data))

    return replace


@pytest.mark.parametrize(
    ("model", "status", "wanted"),
    [
        ("anthropic.claude-sonnet-4-6", 400, "on-demand throughput isn\u2019t supported"),
        ("us.anthropic.claude-99", 400, "The provided model identifier is invalid."),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", 404, "reached the end of its life"),
    ],
)
@asynchronous
async def test_a_model_id_that_is_not_served_is_refused(model: str, status: int, wanted: str) -> None:
    async with Aws() as aws:
        refused = await refusal(Boto(aws, "bedrock-runtime").converse(modelId=model, **ASKED))
        assert (refused[0], wanted in refused[2]) == (status, True)


@asynchronous
async def test_an_answer_may_depend_on_the_request_and_be_cut_which_botocore_takes_for_an_empty_one() -> None:
    def echo(asked: Asked) -> Any:
        return says(asked.body["messages"][0]["content"][0]["text"])

    async with Aws() as aws:
        client = Boto(aws, "bedrock-runtime")
        aws.answer = echo
        assert text_of(await client.converse_stream(modelId=CLAUDE, **ASKED)) == "hi"
        aws.answer = says("Hel", CUT)
        assert "output" not in await client.converse(modelId=CLAUDE, **ASKED)
