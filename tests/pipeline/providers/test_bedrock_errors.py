"""Every error that Bedrock documents, and what may come instead of Bedrock: what it becomes, and what it hides."""

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

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.providers.aws import masked, translate
from tests.aio import asynchronous, soon
from tests.aws import BAD_CHECKSUM, CUT, errs, fails, raises, says
from tests.pipeline.providers.asking import inference, read_all
from tests.pipeline.providers.on_bedrock import PLAIN, failure, talking

pytestmark = pytest.mark.slow  # each row of the table is a world of its own to set up

PLANTED = {
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
LEAKY = (
    f"User: arn:aws:iam::{PLANTED['account']}:{PLANTED['user']} ({PLANTED['key']}, {PLANTED['temporary']}) is kept "
    f"from arn:aws:bedrock:us-west-2:{PLANTED['account']}:inference-profile/p; secret {PLANTED['secret']}, session "
    f"{PLANTED['session']}, https://bucket.s3.amazonaws.com/k?X-Amz-Expires=9&{PLANTED['signature']}, "
    f"{PLANTED['token']} Authorization: Bearer {PLANTED['bearer']}"
)

# facts D4: code, what it becomes, whether our own `retry` may ask again, seconds to wait
ROWS: list[tuple[str, type[ForgelineError], bool, float | None]] = [
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
IN_STREAM: list[tuple[str, type[ForgelineError]]] = [
    ("throttlingException", RateLimited),
    ("serviceUnavailableException", Unavailable),
    ("internalServerException", ModelError),
    ("modelStreamErrorException", ModelError),
    ("validationException", InvalidRequest),
]
every_row = pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
either_way = pytest.mark.parametrize("capabilities", [PLAIN, ("text", "stream")], ids=["whole", "streamed"])


def check_hidden(error: ForgelineError, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the sentence, nor a traceback of it, nor anything that the SDK has logged, shows what was planted."""
    shown = [error.message, *traceback.format_exception(error), caplog.text]
    assert [name for name, value in PLANTED.items() if any(value in text for text in shown)] == []


# --- before an answer --------------------------------------------------------------------------------


@every_row
@either_way
@asynchronous
async def test_every_refusal_is_asked_for_once_and_hides_what_is_secret(
    caplog: pytest.LogCaptureFixture,
    capabilities: tuple[str, ...],
    row: tuple[str, type[ForgelineError], bool, float | None],
) -> None:
    caplog.set_level(logging.DEBUG)
    code, *expected = row
    error = await failure(fails(code, LEAKY), capabilities=capabilities)
    assert [type(error), error.retryable, error.retry_after] == expected
    assert "claude4" in error.message
    check_hidden(error, caplog)


@asynchronous
async def test_bedrocks_own_words_are_passed_on_where_the_request_is_wrong() -> None:
    error = await failure(fails("ValidationException", "The maximum tokens you requested exceeds the model limit."))
    assert error.message == "claude4 refused the request: The maximum tokens you requested exceeds the model limit."


@asynchronous
async def test_a_throttle_that_names_a_time_is_believed() -> None:
    assert (await failure(fails("ThrottlingException", headers={"Retry-After": "7"}))).retry_after == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(400, InvalidRequest), (403, Unavailable), (413, InvalidRequest), (424, ModelError), (429, RateLimited)],
        *[(502, ModelError), (503, Unavailable), (504, Unavailable), (529, ModelError)],
    ],
)
@asynchronous
async def test_a_code_that_nobody_knows_is_told_by_its_status(status: int, kind: type[ForgelineError]) -> None:
    assert type(await failure(fails("Weird", "Weird.", status))) is kind


@asynchronous
async def test_a_model_that_has_ended_is_one_that_is_not_there() -> None:
    async with talking(model="us.anthropic.claude-sonnet-4-20250514-v1:0") as (_, provider, to):
        with pytest.raises(Unavailable, match="end of its life"):
            await provider.open(to, inference())


# --- in the middle of an answer ----------------------------------------------------------------------


@pytest.mark.parametrize(("member", "kind"), IN_STREAM)
@asynchronous
async def test_an_exception_inside_a_stream_before_its_first_chunk_comes_out_of_open(
    caplog: pytest.LogCaptureFixture, member: str, kind: type[ForgelineError]
) -> None:
    caplog.set_level(logging.DEBUG)
    error = await failure(says(raises(member, LEAKY)))
    assert (type(error), "claude4" in error.message) == (kind, True)
    assert isinstance(error, RateLimited) == (error.retry_after == 1)
    check_hidden(error, caplog)


@pytest.mark.parametrize(("member", "kind"), IN_STREAM)
@asynchronous
async def test_an_exception_after_the_first_chunk_comes_out_of_the_reply(
    caplog: pytest.LogCaptureFixture, member: str, kind: type[ForgelineError]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with talking(says("a", "b", raises(member, LEAKY))) as (aws, provider, to):
        reply = await provider.open(to, inference())
        parts = aiter(reply)
        assert [await anext(parts), await anext(parts)] == [["a"], ["b"]]
        with pytest.raises(kind) as caught:
            await anext(parts)
        await reply.aclose()
        await soon(aws.idle())
    check_hidden(caught.value, caplog)


BROKEN = {
    "a message with a bad checksum": BAD_CHECKSUM,
    "bytes that are no message": b"<html>502 Bad Gateway</html>" * 9,
    "a lost connection": CUT,
    "an error that no model knows": errs("InternalFailure", "Something."),
    "a delta that is none": {"contentBlockDelta": {"delta": 3}},
}


@pytest.mark.parametrize("begun", [[], ["a"]], ids=["before the first chunk", "after it"])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@asynchronous
async def test_a_damaged_stream_is_an_error_of_the_model(begun: list[str], broken: Any) -> None:
    async with talking(says(*begun, broken)) as (aws, provider, to):
        with pytest.raises(ModelError, match="claude4 failed: "):
            await read_all(await provider.open(to, inference()))
        await soon(aws.idle())
        assert len(aws.requests) == 1


@asynchronous
async def test_a_whole_answer_that_breaks_off_is_an_error_of_the_model() -> None:
    assert type(await failure(says("Hello", CUT), capabilities=PLAIN)) is ModelError


# --- instead of an answer ----------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def instead(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForgelineError]:
    """What `open` raises where AWS's address is served so."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await serve(reader, writer)
        writer.close()

    async with talking() as (_, provider, to):
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            with pytest.raises(ForgelineError) as caught:
                await provider.open(to, inference())
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
@asynchronous
async def test_what_is_not_bedrock_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, kind: type[ForgelineError], retryable: bool
) -> None:
    async with instead(serve, monkeypatch) as error:
        assert (type(error), error.retryable) == (kind, retryable)
        assert "127.0.0.1" not in error.message


@asynchronous
async def test_where_nobody_listens_it_is_unavailable_and_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as (_, provider, to):
        server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        server.close()
        with pytest.raises(Unavailable, match="claude4 can't be reached: no connection to AWS could be made") as caught:
            await provider.open(to, inference())
        assert caught.value.retryable


# --- what no test can wait for -----------------------------------------------------------------------

TRANSLATED: list[tuple[Exception, type[ForgelineError], bool]] = [
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


@pytest.mark.parametrize(("error", "kind", "retryable"), TRANSLATED, ids=lambda one: type(one).__name__)
def test_every_error_of_the_sdk_is_one_of_ours(error: Exception, kind: type[ForgelineError], retryable: bool) -> None:
    ours = translate(error, "claude4")
    assert (type(ours), ours.retryable) == (kind, retryable)
    assert ours.message.endswith(".") or ours.message.count(" ") > 3


@pytest.mark.parametrize("code", ["AccessDenied", "ValidationError", "ExpiredToken", "RegionDisabledException"])
def test_a_role_that_is_refused_is_a_matter_of_credentials(code: str) -> None:
    refused = sdk.ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "AssumeRole")
    assert "credentials" in translate(refused, "claude4").message


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = ModelError("Broken.")
    assert translate(error, "claude4") is error


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_secret_is_masked_in_any_text(name: str) -> None:
    assert PLANTED[name] not in masked(LEAKY)


@pytest.mark.parametrize(
    "text",
    [
        "The model returned the following errors: messages.0.content.1.image.source: image exceeds 5 MB maximum",
        "Invocation of model ID anthropic.claude-sonnet-4-5-20250929-v1:0 with on-demand throughput isn't supported.",
        "max_tokens: 200000 > 64000, see https://docs.aws.amazon.com/bedrock/latest/userguide/inference.html",
        "arn:aws:bedrock:us-west-2::foundation-model/amazon.nova-pro-v1:0",
    ],
)
def test_what_helps_is_left_as_it_is(text: str) -> None:
    assert masked(text) == text
