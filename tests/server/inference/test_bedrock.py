"""Claude and Nova through the whole server, with AWS configured by environment variables only."""

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

from tests.async_tests import async_test, within_deadline
from tests.aws import CUT, Aws, error_response, stream_exception, text_response
from tests.pipeline.media.make_pictures import plain_picture
from tests.processes import ROOT, ServerProcess, running_process
from tests.running_server import HttpResponse, parse_sse
from tests.server.checks import check_error, check_stream, text_of
from tests.sockets import WebSocketClient

CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-6", "us.amazon.nova-pro-v1:0"
ACCOUNT, KEY = "123456789012", "AKIAIOSFODNN7EXAMPLE"
MESSAGE_WITH_SECRETS = (
    f"arn:aws:iam::{ACCOUNT}:user/bob, {KEY}, https://b.s3.amazonaws.com/k?X-Amz-Signature=5d672d79c15b13162d92"
)
PICTURE = plain_picture(8, 8)
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
async def bedrock_server(folder: Path) -> AsyncIterator[tuple[Aws, ServerProcess]]:
    """A server with the shipped presets and AWS's variables."""
    async with Aws() as aws:
        flags = ["--presets", str(ROOT / "presets"), "--log-format", "json"]
        environ = {
            name: aws.environ.get(name, "")
            for name in {*aws.isolated_environ(), *aws.environ}
            if name.startswith("AWS_")
        }
        async with running_process(folder, *flags, models={}, environ=environ) as process:
            yield aws, process


async def post(process: ServerProcess, path: str, body: Any = BODY, **headers: str) -> HttpResponse:
    async with process.http.post(process.url + path, json=body, headers=headers) as response:
        return HttpResponse(response.status, response.headers, await response.read())


def sent_pictures(body: Any) -> list[bytes]:
    content = body["messages"][0]["content"]
    return [base64.b64decode(block["image"]["source"]["bytes"]) for block in content if "image" in block]


@pytest.mark.parametrize(("name", "model"), [("claude4", CLAUDE), ("nova", NOVA)])
@async_test
async def test_bedrock_envelope_has_aws_usage(tmp_path: Path, name: str, model: str) -> None:
    usage = {"inputTokens": 30, "outputTokens": 4, "cacheReadInputTokens": 7}
    async with bedrock_server(tmp_path) as (aws, process):
        aws.response = text_response("A ", "picture.", stop_reason="max_tokens", usage=usage)
        response = await post(process, f"/api/{name}")
        assert (response.status, response.text) == (200, "A picture.")
        result = response.json["response"]
        assert (result["model"], result["stop_reason"], len(result["id"])) == (model, "max_tokens", 36)
        assert result["usage"] == {"input_tokens": 30, "output_tokens": 4, "cache_read_tokens": 7}
        assert response.json["metadata"]["provider"] == "bedrock"
        assert response.json["metadata"]["time_to_first_token_ms"] > 0
        (request,) = aws.requests
        assert (request.operation, request.target, sent_pictures(request.body)) == (
            "ConverseStream",
            model,
            [PICTURE.data],
        )
        assert request.body["inferenceConfig"] == {"maxTokens": 64, "temperature": 0.1}


@pytest.mark.parametrize("name", ["claude4", "nova"])
@async_test
async def test_bedrock_chunks_are_forwarded_at_once(tmp_path: Path, name: str) -> None:
    gate = asyncio.Event()
    async with bedrock_server(tmp_path) as (aws, process):
        aws.response = text_response("A ", gate, "picture.")
        async with process.http.post(f"{process.url}/api/stream/{name}", json=BODY) as response:
            head = await response.content.readuntil(b'"A "')
            gate.set()
            outcomes = check_stream(parse_sse(head + await response.read()))
        assert text_of(outcomes[name]) == "A picture."


@async_test
async def test_bedrock_multi_inference_sends_same_pictures(tmp_path: Path) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        aws.responses[CLAUDE], aws.responses[NOVA] = (
            text_response("from Claude"),
            error_response("ValidationException", "No."),
        )
        body = BODY | {
            "models": ["claude4", "nova"],
            "frames": [plain_picture(8, 8, k).as_base64() for k in ("png", "webp")],
        }
        response = await post(process, "/api/multi-inference", body)
        claude, nova = response.json["results"]
        assert (claude["status"], text_of(claude)) == ("success", "from Claude")
        assert (nova["status"], nova["code"], nova["error"]) == (
            "error",
            "invalid_request",
            "nova refused the request: No.",
        )
        sent = [sent_pictures(request.body) for request in aws.requests]
        assert len(sent) == 2
        assert sent[0] == sent[1] != []


@async_test
async def test_bedrock_models_stream_over_one_websocket(tmp_path: Path) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        aws.responses[CLAUDE], aws.responses[NOVA] = text_response("from ", "Claude"), text_response("from ", "Nova")
        async with process.http.ws_connect(process.url + "/ws") as ws:
            session = WebSocketClient(ws)
            await session.send(op="infer", id="a", models=["claude4", "nova"], **BODY)
            outcomes = check_stream(await session.read_until_complete("a"))
        assert {name: text_of(result) for name, result in outcomes.items()} == {
            "claude4": "from Claude",
            "nova": "from Nova",
        }


@async_test
async def test_client_disconnect_ends_bedrock_call(tmp_path: Path) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        aws.response = text_response("A ", asyncio.Event())
        async with process.http.post(process.url + "/api/stream/nova", json=BODY) as response:
            await response.content.readuntil(b'"A "')
            response.close()
        await within_deadline(aws.wait_until_idle())
        assert aws.aborted == 1


@async_test
async def test_bedrock_errors_have_status_retries_and_no_secrets(tmp_path: Path) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        for code, status, error_code, calls in ERRORS:
            aws.response, before = (
                error_response(code, MESSAGE_WITH_SECRETS, headers={"Retry-After": "0"}),
                aws.calls.total(),
            )
            body = check_error(await post(process, "/api/nova"), status, error_code, "nova")
            assert aws.calls.total() - before == calls, code
            check_no_secrets(json.dumps(body))
            aws.response = text_response("Hi")  # so that the breaker sees no failures in a row
            assert (await post(process, "/api/nova")).status == 200
        log = (await process.stop()).err
    assert log.count('"retry_scheduled"') > 0
    check_no_secrets(log)


@pytest.mark.parametrize("piece", [stream_exception("throttlingException", MESSAGE_WITH_SECRETS), CUT])
@async_test
async def test_bedrock_failure_in_mid_stream_is_error_event(tmp_path: Path, piece: Any) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        aws.response = text_response("A ", piece)
        response = await post(process, "/api/stream/claude4")
        result = check_stream(response.events)["claude4"]
        assert result["code"] in {"rate_limited", "model_error"}
        assert [event["type"] for event in response.events] == ["start", "chunk", "error", "complete"]
        assert len(aws.requests) == 1
        check_no_secrets(response.content.decode())


@async_test
async def test_bedrock_throttling_before_first_token_is_retried(tmp_path: Path) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        aws.enqueue(CLAUDE, text_response(stream_exception("throttlingException")))
        response = await post(process, "/api/claude4")
        assert (response.status, response.text, len(aws.requests)) == (200, "Hello world", 2)


@async_test
async def test_model_list_has_bedrock_availability_of_last_call(tmp_path: Path) -> None:
    async with bedrock_server(tmp_path) as (aws, process):
        assert (await get_model(process, "claude4"))["availability"] == "unknown"
        aws.enqueue(CLAUDE, error_response("AccessDeniedException", MESSAGE_WITH_SECRETS))
        await post(process, "/api/claude4")
        result = await get_model(process, "claude4")
        assert result["availability"] == "unavailable"
        assert "permission" in result["reason"]
        await post(process, "/api/claude4")
        assert (await get_model(process, "claude4"))["availability"] == "available"


async def get_model(process: ServerProcess, name: str) -> dict[str, Any]:
    response: aiohttp.ClientResponse
    async with process.http.get(process.url + "/api/models") as response:
        models = {model["name"]: model for model in (await response.json())["models"]}
        result: dict[str, Any] = models[name]
        return result


def check_no_secrets(text: str) -> None:
    assert [secret for secret in (ACCOUNT, KEY, "5d672d79c15b13162d92", "bob") if secret in text] == []
