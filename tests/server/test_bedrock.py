"""Claude and Nova by the whole server, which is told of AWS by nothing but the environment, as anybody's would be."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.aio import asynchronous, soon
from tests.aws import CUT, Aws, fails, raises, says
from tests.pipeline.drawn import plain
from tests.processes import ROOT, Process, running
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import Answer, sse_events
from tests.sockets import Talk

CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-6", "us.amazon.nova-pro-v1:0"
ACCOUNT, KEY = "123456789012", "AKIAIOSFODNN7EXAMPLE"
LEAKY = f"arn:aws:iam::{ACCOUNT}:user/bob, {KEY}, https://b.s3.amazonaws.com/k?X-Amz-Signature=5d672d79c15b13162d92"
PICTURE = plain(8, 8)
BODY = {"text": "What is this?", "frames": [PICTURE.as_base64()], "max_tokens": 64}
ERRORS = [
    ("ThrottlingException", 429, "rate_limited", 3),
    ("ModelNotReadyException", 429, "rate_limited", 3),
    ("ServiceUnavailableException", 503, "unavailable", 3),
    ("InternalServerException", 500, "model_error", 3),
    ("ModelErrorException", 500, "model_error", 3),
    ("ModelTimeoutException", 503, "unavailable", 1),
    ("ValidationException", 400, "invalid_request", 1),
    ("AccessDeniedException", 503, "unavailable", 1),
    ("ExpiredTokenException", 503, "unavailable", 1),
    ("ResourceNotFoundException", 503, "unavailable", 1),
    ("ServiceQuotaExceededException", 429, "rate_limited", 3),
]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Aws, Process]]:
    """The shipped presets, and AWS's variables."""
    async with Aws() as aws:
        flags = ["--presets", str(ROOT / "presets"), "--log-format", "json"]
        environ = {name: aws.environ.get(name, "") for name in {*aws.only(), *aws.environ} if name.startswith("AWS_")}
        async with running(folder, *flags, models={}, environ=environ) as process:
            yield aws, process


async def post(process: Process, path: str, body: Any = BODY, **headers: str) -> Answer:
    async with process.http.post(process.url + path, json=body, headers=headers) as response:
        return Answer(response.status, response.headers, await response.read())


def pictures(body: Any) -> list[bytes]:
    content = body["messages"][0]["content"]
    return [base64.b64decode(block["image"]["source"]["bytes"]) for block in content if "image" in block]


@pytest.mark.parametrize(("name", "model"), [("claude4", CLAUDE), ("nova", NOVA)])
@asynchronous
async def test_a_plain_answer_is_the_envelope_with_awss_own_tokens(tmp_path: Path, name: str, model: str) -> None:
    usage = {"inputTokens": 30, "outputTokens": 4, "cacheReadInputTokens": 7}
    async with serving(tmp_path) as (aws, process):
        aws.answer = says("A ", "picture.", stop="max_tokens", usage=usage)
        answer = await post(process, f"/api/{name}")
        assert (answer.status, answer.text) == (200, "A picture.")
        told = answer.json["response"]
        assert (told["model"], told["stop_reason"], len(told["id"])) == (model, "max_tokens", 36)
        assert told["usage"] == {"input_tokens": 30, "output_tokens": 4, "cache_read_tokens": 7}
        assert answer.json["metadata"]["provider"] == "bedrock"
        assert answer.json["metadata"]["time_to_first_token_ms"] > 0
        (asked,) = aws.requests
        assert (asked.operation, asked.target, pictures(asked.body)) == ("ConverseStream", model, [PICTURE.data])
        assert asked.body["inferenceConfig"] == {"maxTokens": 64, "temperature": 0.1}


@pytest.mark.parametrize("name", ["claude4", "nova"])
@asynchronous
async def test_tokens_come_as_they_come_from_aws(tmp_path: Path, name: str) -> None:
    gate = asyncio.Event()
    async with serving(tmp_path) as (aws, process):
        aws.answer = says("A ", gate, "picture.")
        async with process.http.post(f"{process.url}/api/stream/{name}", json=BODY) as response:
            begun = await response.content.readuntil(b'"A "')
            gate.set()
            outcomes = check_stream(sse_events(begun + await response.read()))
        assert text_of(outcomes[name]) == "A picture."


@asynchronous
async def test_both_answer_side_by_side_with_the_same_pictures(tmp_path: Path) -> None:
    async with serving(tmp_path) as (aws, process):
        aws.answers[CLAUDE], aws.answers[NOVA] = says("from Claude"), fails("ValidationException", "No.")
        body = BODY | {"models": ["claude4", "nova"], "frames": [plain(8, 8, k).as_base64() for k in ("png", "webp")]}
        answer = await post(process, "/api/multi-inference", body)
        claude, nova = answer.json["results"]
        assert (claude["status"], text_of(claude)) == ("success", "from Claude")
        assert (nova["status"], nova["code"], nova["error"]) == (
            "error",
            "invalid_request",
            "nova refused the request: No.",
        )
        sent = [pictures(asked.body) for asked in aws.requests]
        assert len(sent) == 2
        assert sent[0] == sent[1] != []


@asynchronous
async def test_a_websocket_carries_both_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (aws, process):
        aws.answers[CLAUDE], aws.answers[NOVA] = says("from ", "Claude"), says("from ", "Nova")
        async with process.http.ws_connect(process.url + "/ws") as ws:
            talk = Talk(ws)
            await talk.say(op="infer", id="a", models=["claude4", "nova"], **BODY)
            outcomes = check_stream(await talk.whole("a"))
        assert {name: text_of(told) for name, told in outcomes.items()} == {
            "claude4": "from Claude",
            "nova": "from Nova",
        }


@asynchronous
async def test_one_who_leaves_ends_the_call_at_aws(tmp_path: Path) -> None:
    async with serving(tmp_path) as (aws, process):
        aws.answer = says("A ", asyncio.Event())
        async with process.http.post(process.url + "/api/stream/nova", json=BODY) as response:
            await response.content.readuntil(b'"A "')
            response.close()
        await soon(aws.idle())
        assert aws.aborted == 1


@asynchronous
async def test_every_documented_error_has_its_status_its_calls_and_no_secret(tmp_path: Path) -> None:
    async with serving(tmp_path) as (aws, process):
        for code, status, word, calls in ERRORS:
            aws.answer, before = fails(code, LEAKY, headers={"Retry-After": "0"}), aws.calls.total()
            body = check_error(await post(process, "/api/nova"), status, word, "nova")
            assert aws.calls.total() - before == calls, code
            check_hidden(json.dumps(body))
            aws.answer = says("Hi")  # so that the breaker sees no failures in a row
            assert (await post(process, "/api/nova")).status == 200
        log = (await process.stopped()).err
    assert log.count('"retry"') > 0
    check_hidden(log)


@pytest.mark.parametrize("piece", [raises("throttlingException", LEAKY), CUT])
@asynchronous
async def test_what_fails_after_the_first_token_is_an_error_event_and_the_end(tmp_path: Path, piece: Any) -> None:
    async with serving(tmp_path) as (aws, process):
        aws.answer = says("A ", piece)
        answer = await post(process, "/api/stream/claude4")
        told = check_stream(answer.events)["claude4"]
        assert told["code"] in {"rate_limited", "model_error"}
        assert [event["type"] for event in answer.events] == ["start", "chunk", "error", "complete"]
        assert len(aws.requests) == 1
        check_hidden(answer.content.decode())


@asynchronous
async def test_a_throttle_inside_a_stream_that_has_said_nothing_is_asked_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (aws, process):
        aws.next(CLAUDE, says(raises("throttlingException")))
        answer = await post(process, "/api/claude4")
        assert (answer.status, answer.text, len(aws.requests)) == (200, "Hello world", 2)


@asynchronous
async def test_the_list_of_models_says_what_the_last_call_showed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (aws, process):
        assert (await listed(process, "claude4"))["availability"] == "unknown"
        aws.next(CLAUDE, fails("AccessDeniedException", LEAKY))
        await post(process, "/api/claude4")
        told = await listed(process, "claude4")
        assert told["availability"] == "unavailable"
        assert "permission" in told["reason"]
        await post(process, "/api/claude4")
        assert (await listed(process, "claude4"))["availability"] == "available"


async def listed(process: Process, name: str) -> dict[str, Any]:
    response: aiohttp.ClientResponse
    async with process.http.get(process.url + "/api/models") as response:
        models = {model["name"]: model for model in (await response.json())["models"]}
        told: dict[str, Any] = models[name]
        return told


def check_hidden(text: str) -> None:
    assert [secret for secret in (ACCOUNT, KEY, "5d672d79c15b13162d92", "bob") if secret in text] == []
