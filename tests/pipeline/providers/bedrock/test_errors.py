"""Errors of bedrock: every error that Bedrock documents, damaged responses, other servers; and masked secrets."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from botocore import exceptions as sdk
from botocore.eventstream import ChecksumMismatch

from pipeline.aws.errors import to_forgeline_error
from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.masking import mask_identifiers
from tests.async_tests import async_test, within_deadline
from tests.aws import BAD_CHECKSUM, CUT, error_response, stream_error, stream_exception, text_response
from tests.pipeline.providers.bedrock.helpers import WITHOUT_STREAM, aws_and_provider, catch_open_error
from tests.pipeline.providers.helpers import make_inference, read_parts

pytestmark = pytest.mark.slow  # each row sets up an AWS of its own

SECRETS = {
    "account": "123456789012",
    "key": "AKIAIOSFODNN7EXAMPLE",
    "temporary": "ASIAQWERTYUIOPASDFGH",
    "secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "signature": "X-Amz-Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    "user": "user/bob",
    "token": "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t",
    "bearer": "abc.def.ghi",
    "session": "FwoGZXIvYXdzEBYaDAx" * 8 + "==",
}
MESSAGE_WITH_SECRETS = (
    f"User: arn:aws:iam::{SECRETS['account']}:{SECRETS['user']} ({SECRETS['key']}, {SECRETS['temporary']}) is kept "
    f"from arn:aws:bedrock:us-west-2:{SECRETS['account']}:inference-profile/p; secret {SECRETS['secret']}, session "
    f"{SECRETS['session']}, https://bucket.s3.amazonaws.com/k?X-Amz-Expires=9&{SECRETS['signature']}, "
    f"{SECRETS['token']} Authorization: Bearer {SECRETS['bearer']}"
)

# facts D4: code, what it becomes, whether our own `retry` may ask again, seconds to wait
BEDROCK_ERRORS: list[tuple[str, type[ForgelineError], bool, float | None]] = [
    ("ThrottlingException", RateLimited, True, 1.0),
    ("ModelNotReadyException", RateLimited, True, 1.0),
    ("ServiceQuotaExceededException", RateLimited, True, 1.0),
    ("ServiceUnavailableException", Unavailable, True, None),
    ("InternalServerException", ModelError, True, None),
    ("ModelErrorException", ModelError, True, None),
    ("ModelTimeoutException", Unavailable, False, None),
    ("ValidationException", InvalidRequest, False, None),
    ("AccessDeniedException", Unavailable, False, None),
    ("ResourceNotFoundException", Unavailable, False, None),
    ("UnrecognizedClientException", Unavailable, False, None),
    ("ExpiredTokenException", Unavailable, False, None),
    ("InvalidSignatureException", Unavailable, False, None),
    ("MissingAuthenticationTokenException", Unavailable, False, None),
    ("InventedTomorrowException", InvalidRequest, False, None),
]
STREAM_EXCEPTIONS: list[tuple[str, type[ForgelineError]]] = [
    ("throttlingException", RateLimited),
    ("serviceUnavailableException", Unavailable),
    ("internalServerException", ModelError),
    ("modelStreamErrorException", ModelError),
    ("validationException", InvalidRequest),
]
every_bedrock_error = pytest.mark.parametrize("row", BEDROCK_ERRORS, ids=[row[0] for row in BEDROCK_ERRORS])
with_and_without_stream = pytest.mark.parametrize(
    "capabilities", [WITHOUT_STREAM, ("text", "stream")], ids=["whole", "streamed"]
)


def check_no_secrets(error: ForgelineError, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the message, nor its traceback, nor the SDK's log shows one of `SECRETS`."""
    visible = [error.message, *traceback.format_exception(error), caplog.text]
    assert [name for name, value in SECRETS.items() if any(value in text for text in visible)] == []


# --- before an answer --------------------------------------------------------------------------------


@every_bedrock_error
@with_and_without_stream
@async_test
async def test_every_bedrock_error_is_translated_without_retry_or_secrets(
    caplog: pytest.LogCaptureFixture,
    capabilities: tuple[str, ...],
    row: tuple[str, type[ForgelineError], bool, float | None],
) -> None:
    caplog.set_level(logging.DEBUG)
    code, *expected = row
    error = await catch_open_error(error_response(code, MESSAGE_WITH_SECRETS), capabilities=capabilities)
    assert [type(error), error.retryable, error.retry_after] == expected
    assert "claude4" in error.message
    check_no_secrets(error, caplog)


@async_test
async def test_validation_error_has_bedrock_message() -> None:
    error = await catch_open_error(
        error_response("ValidationException", "The maximum tokens you requested exceeds the model limit.")
    )
    assert error.message == "claude4 refused the request: The maximum tokens you requested exceeds the model limit."


@async_test
async def test_throttling_uses_retry_after_header() -> None:
    assert (
        await catch_open_error(error_response("ThrottlingException", headers={"Retry-After": "7"}))
    ).retry_after == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(400, InvalidRequest), (403, Unavailable), (413, InvalidRequest), (424, ModelError), (429, RateLimited)],
        *[(502, ModelError), (503, Unavailable), (504, Unavailable), (529, ModelError)],
    ],
)
@async_test
async def test_unknown_error_code_is_translated_by_status(status: int, kind: type[ForgelineError]) -> None:
    assert type(await catch_open_error(error_response("Weird", "Weird.", status))) is kind


@async_test
async def test_retired_model_is_unavailable() -> None:
    async with aws_and_provider(model="us.anthropic.claude-sonnet-4-20250514-v1:0") as (_, provider, target):
        with pytest.raises(Unavailable, match="end of its life"):
            await provider.open(target, make_inference())


# --- in the middle of an answer ----------------------------------------------------------------------


@pytest.mark.parametrize(("member", "kind"), STREAM_EXCEPTIONS)
@async_test
async def test_stream_exception_before_first_chunk_is_raised_by_open(
    caplog: pytest.LogCaptureFixture, member: str, kind: type[ForgelineError]
) -> None:
    caplog.set_level(logging.DEBUG)
    error = await catch_open_error(text_response(stream_exception(member, MESSAGE_WITH_SECRETS)))
    assert (type(error), "claude4" in error.message) == (kind, True)
    assert isinstance(error, RateLimited) == (error.retry_after == 1)
    check_no_secrets(error, caplog)


@pytest.mark.parametrize(("member", "kind"), STREAM_EXCEPTIONS)
@async_test
async def test_stream_exception_after_first_chunk_is_raised_by_response(
    caplog: pytest.LogCaptureFixture, member: str, kind: type[ForgelineError]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with aws_and_provider(text_response("a", "b", stream_exception(member, MESSAGE_WITH_SECRETS))) as (
        aws,
        provider,
        target,
    ):
        response = await provider.open(target, make_inference())
        parts = aiter(response)
        assert [await anext(parts), await anext(parts)] == [["a"], ["b"]]
        with pytest.raises(kind) as caught:
            await anext(parts)
        await response.aclose()
        await within_deadline(aws.wait_until_idle())
    check_no_secrets(caught.value, caplog)


DAMAGED_STREAMS = {
    "a message with a bad checksum": BAD_CHECKSUM,
    "bytes that are no message": b"<html>502 Bad Gateway</html>" * 9,
    "a lost connection": CUT,
    "an error that no model knows": stream_error("InternalFailure", "Something."),
    "a delta that is none": {"contentBlockDelta": {"delta": 3}},
}


@pytest.mark.parametrize("text_before", [[], ["a"]], ids=["before the first chunk", "after it"])
@pytest.mark.parametrize("broken", DAMAGED_STREAMS.values(), ids=DAMAGED_STREAMS)
@async_test
async def test_damaged_stream_is_model_error(text_before: list[str], broken: Any) -> None:
    async with aws_and_provider(text_response(*text_before, broken)) as (aws, provider, target):
        with pytest.raises(ModelError, match="claude4 failed: "):
            await read_parts(await provider.open(target, make_inference()))
        await within_deadline(aws.wait_until_idle())
        assert len(aws.requests) == 1


@async_test
async def test_cut_converse_response_is_model_error() -> None:
    assert type(await catch_open_error(text_response("Hello", CUT), capabilities=WITHOUT_STREAM)) is ModelError


# --- instead of an answer ----------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def catch_error_from_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForgelineError]:
    """The error that `open` raises if AWS's address is served by this server."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await serve(reader, writer)
        writer.close()

    async with aws_and_provider() as (_, provider, target):
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            with pytest.raises(ForgelineError) as caught:
                await provider.open(target, make_inference())
        yield caught.value


async def close_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def write_nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n\r\n")


async def write_html(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 17\r\nContent-Type: text/html\r\n\r\n<h1>So sorry</h1>")


@pytest.mark.parametrize(
    ("serve", "kind", "retryable"),
    [(close_at_once, Unavailable, True), (write_nonsense, ModelError, True), (write_html, ModelError, True)],
)
@async_test
async def test_response_of_another_server_is_translated(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, kind: type[ForgelineError], retryable: bool
) -> None:
    async with catch_error_from_server(serve, monkeypatch) as error:
        assert (type(error), error.retryable) == (kind, retryable)
        assert "127.0.0.1" not in error.message


@async_test
async def test_connection_refused_is_unavailable_and_retryable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aws_and_provider() as (_, provider, target):
        server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        server.close()
        with pytest.raises(Unavailable, match="claude4 can't be reached: no connection to AWS could be made") as caught:
            await provider.open(target, make_inference())
        assert caught.value.retryable


# --- what no test can wait for -----------------------------------------------------------------------

SDK_ERRORS: list[tuple[Exception, type[ForgelineError], bool]] = [
    (sdk.ReadTimeoutError(endpoint_url="u"), Unavailable, False),
    (sdk.ConnectTimeoutError(endpoint_url="u"), Unavailable, True),
    (sdk.ProxyConnectionError(proxy_url="u"), Unavailable, True),
    (sdk.SSLError(endpoint_url="u", error="e"), Unavailable, False),
    (sdk.NoCredentialsError(), Unavailable, False),
    (sdk.PartialCredentialsError(provider="p", cred_var="v"), Unavailable, False),
    (sdk.CredentialRetrievalError(provider="p", error_msg="e"), Unavailable, False),
    (sdk.UnauthorizedSSOTokenError(), Unavailable, False),
    (sdk.SSOTokenLoadError(error_msg="e"), Unavailable, False),
    (sdk.TokenRetrievalError(provider="p", error_msg="e"), Unavailable, False),
    (sdk.LoginRefreshRequired(), Unavailable, False),
    (sdk.InvalidRegionError(region_name="mars"), Unavailable, False),
    (sdk.EndpointResolutionError(msg="m"), Unavailable, False),
    (sdk.ParamValidationError(report="r"), InvalidRequest, False),
    (sdk.HTTPClientError(error=ValueError("x")), Unavailable, False),
    (sdk.ResponseStreamingError(error="e"), ModelError, True),
    (ChecksumMismatch(1, 2), ModelError, True),
    (aiohttp.ServerTimeoutError(), Unavailable, False),
    (aiohttp.ClientPayloadError(), ModelError, True),
    (ConnectionResetError(), ModelError, True),
    (KeyError("usage"), ModelError, True),
]


@pytest.mark.parametrize(("error", "kind", "retryable"), SDK_ERRORS, ids=lambda value: type(value).__name__)
def test_every_sdk_error_is_translated(error: Exception, kind: type[ForgelineError], retryable: bool) -> None:
    translated = to_forgeline_error(error, "claude4")
    assert (type(translated), translated.retryable) == (kind, retryable)
    assert translated.message.endswith(".") or translated.message.count(" ") > 3


def test_sdk_errors_before_the_call_are_marked() -> None:
    assert {type(error) for error, *_ in SDK_ERRORS if to_forgeline_error(error, "claude4").before_call} == {
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.CredentialRetrievalError,
        sdk.UnauthorizedSSOTokenError,
        sdk.SSOTokenLoadError,
        sdk.TokenRetrievalError,
        sdk.LoginRefreshRequired,
        sdk.InvalidRegionError,
        sdk.EndpointResolutionError,
        sdk.ParamValidationError,
    }


@pytest.mark.parametrize("code", ["AccessDenied", "ValidationError", "ExpiredToken", "RegionDisabledException"])
def test_rejected_role_is_a_credentials_error(code: str) -> None:
    refused = sdk.ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "AssumeRole")
    assert "credentials" in to_forgeline_error(refused, "claude4").message


def test_forgeline_error_is_not_translated() -> None:
    error = ModelError("Broken.")
    assert to_forgeline_error(error, "claude4") is error


@pytest.mark.parametrize("name", SECRETS)
def test_mask_identifiers_masks_secrets(name: str) -> None:
    assert SECRETS[name] not in mask_identifiers(MESSAGE_WITH_SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        "The model returned the following errors: messages.0.content.1.image.source: image exceeds 5 MB maximum",
        "Invocation of model ID anthropic.claude-sonnet-4-5-20250929-v1:0 with on-demand throughput isn't supported.",
        "max_tokens: 200000 > 64000, see https://docs.aws.amazon.com/bedrock/latest/userguide/inference.html",
        "arn:aws:bedrock:us-west-2::foundation-model/amazon.nova-pro-v1:0",
    ],
)
def test_mask_identifiers_keeps_helpful_text(text: str) -> None:
    assert mask_identifiers(text) == text
