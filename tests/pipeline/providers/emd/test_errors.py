"""Errors of emd: those of SageMaker, the router and AWS, translated and without secrets."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, ModelNotDeployed, RateLimited, Unavailable
from tests.async_tests import async_test, within_deadline
from tests.aws import BAD_CHECKSUM, CUT, Key, error_response, stream_error, stream_exception, text_response
from tests.pipeline.providers.emd.helpers import WITHOUT_STREAM, catch_open_error, deployed_emd, emd_fixture
from tests.pipeline.providers.helpers import make_inference, read_parts

pytestmark = pytest.mark.slow  # each row sets up an AWS of its own

SECRETS = (
    "in account 123456789012 with AKIAFORGELINETEST000, see https://logs.example/x?X-Amz-Signature=abc and"
    " arn:aws:sts::123456789012:assumed-role/r/session"
)
SECRET_FRAGMENTS = ("123456789012", "AKIA", "X-Amz", "assumed-role")


def check_no_secrets(error: BaseException) -> None:
    visible = "".join(traceback.format_exception(error))
    assert not [leak for leak in SECRET_FRAGMENTS if leak in str(error)]
    assert not [leak for leak in SECRET_FRAGMENTS if leak in visible]


SAGEMAKER_ERRORS: list[tuple[str, dict[str, Any], type[ForgelineError], bool]] = [
    ("ValidationError", {}, InvalidRequest, False),
    ("ModelNotReadyException", {}, RateLimited, True),
    ("ThrottlingException", {}, RateLimited, True),
    ("ServiceUnavailable", {}, Unavailable, True),
    ("InternalFailure", {}, ModelError, True),
    ("InternalDependencyException", {}, ModelError, True),
    ("AccessDeniedException", {}, Unavailable, False),
    ("ExpiredTokenException", {}, Unavailable, False),
]


@pytest.mark.parametrize("capabilities", [("text", "stream"), WITHOUT_STREAM], ids=["streamed", "plain"])
@pytest.mark.parametrize(
    ("code", "fields", "expected", "retryable"), SAGEMAKER_ERRORS, ids=[row[0] for row in SAGEMAKER_ERRORS]
)
@async_test
async def test_every_sagemaker_error_is_translated(
    code: str, fields: dict[str, Any], expected: type, retryable: bool, capabilities: tuple[str, ...]
) -> None:
    error = await catch_open_error(
        error_response(code, f"upstream's words {SECRETS}", **fields), capabilities=capabilities
    )
    assert type(error) is expected
    assert error.retryable == retryable
    assert ("upstream's words" in error.message) == (code not in {"AccessDeniedException", "ExpiredTokenException"})
    check_no_secrets(error)


@pytest.mark.parametrize(
    ("status", "expected"), [(500, ModelError), (503, ModelError), (400, InvalidRequest), (422, InvalidRequest)]
)
@async_test
async def test_container_error_has_container_message(status: int, expected: type) -> None:
    responder = error_response(
        "ModelError",
        f"Received server error from primary, see {SECRETS}",
        OriginalStatusCode=status,
        OriginalMessage='{"error": "CUDA out of memory ' + SECRETS + '"}',
        LogStreamArn="arn:aws:logs:us-west-2:123456789012:log-group:x",
    )
    error = await catch_open_error(responder)
    assert type(error) is expected
    assert "CUDA out of memory" in error.message
    assert "Received server error" not in error.message
    assert not error.retryable
    check_no_secrets(error)


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (
            stream_exception("ModelStreamError", "the stream broke " + SECRETS, ErrorCode="StreamBroken"),
            "the stream broke",
        ),
        (stream_exception("InternalStreamFailure", "inside " + SECRETS), "inside"),
        (stream_error("InternalFailure", "unmodelled " + SECRETS), "unmodelled"),
        ({"error": "CUDA out of memory " + SECRETS}, "CUDA out of memory"),
        (BAD_CHECKSUM, "damaged"),
        (CUT, "broke off"),
        (b"rubbish\n", "not a chunk"),
    ],
    ids=["ModelStreamError", "InternalStreamFailure", "error event", "error line", "checksum", "cut", "rubbish"],
)
@pytest.mark.parametrize("first", [True, False], ids=["at first", "in mid-stream"])
@async_test
async def test_broken_stream_is_model_error_after_text(piece: Any, message: str, first: bool) -> None:
    if first:
        error: BaseException = await catch_open_error(text_response(piece))
    else:
        async with deployed_emd(text_response("Hello", piece)) as emd:
            response = await emd.provider.open(emd.target, make_inference())
            parts = aiter(response)
            assert await anext(parts) == ["Hello"]
            with pytest.raises(ModelError) as caught:
                await anext(parts)
            await response.aclose()
            await within_deadline(emd.aws.wait_until_idle())
            error = caught.value
    assert type(error) is ModelError
    assert message in str(error)
    check_no_secrets(error)


@pytest.mark.parametrize("finish", [None, "end_turn"])
@async_test
async def test_stream_without_finish_reason_is_model_error(finish: str | None) -> None:
    async with deployed_emd(text_response("Hello", stop_reason=finish, usage=None)) as emd:
        response = await emd.provider.open(emd.target, make_inference())
        if finish is None:
            with pytest.raises(ModelError, match="broke off"):
                await read_parts(response)
        else:
            assert (await read_parts(response))[0] == "Hello"


# --- the router ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, InvalidRequest), (429, RateLimited), (500, ModelError), (502, ModelError), (503, Unavailable)],
)
@async_test
async def test_router_error_has_router_message(status: int, expected: type) -> None:
    error = await catch_open_error(error_response("", f"upstream's words {SECRETS}", status), service="ecs")
    assert type(error) is expected
    assert "upstream's words" in error.message
    check_no_secrets(error)


@async_test
async def test_error_in_router_stream_is_masked() -> None:
    async with deployed_emd(text_response("Hello", stream_exception("x", f"boom {SECRETS}")), "ecs") as emd:
        response = await emd.provider.open(emd.target, make_inference())
        with pytest.raises(ModelError, match="boom") as caught:
            await read_parts(response)
        check_no_secrets(caught.value)


# --- credentials -----------------------------------------------------------------------------------


@async_test
async def test_missing_credentials_report_deploy_command_and_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd_fixture() as emd:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(
            ModelNotDeployed, match=r"emd deploy --model-id .*  # No AWS credentials were found"
        ) as caught:
            await emd.provider.open(emd.target, make_inference())
        assert caught.value.before_call
        deployment = await emd.provider.deployment(emd.models["gemma"])
        assert deployment.status == "unknown"
        assert "No AWS credentials" in (deployment.reason or "")
        availability = await emd.provider.availability(emd.models["gemma"])
        assert (availability.status, availability.reason) == ("unknown", deployment.reason)


@async_test
async def test_wrong_secret_key_is_unavailable() -> None:
    async with emd_fixture() as emd:
        emd.aws.keys["AKIAFORGELINETEST000"] = Key("another")
        with pytest.raises(Unavailable, match="AWS refused the credentials") as caught:
            await emd.provider.open(emd.target, make_inference())
        check_no_secrets(caught.value)


@async_test
async def test_missing_region_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd_fixture(region=None) as emd:
        monkeypatch.delenv("AWS_REGION")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(Unavailable, match="No AWS region is known"):
            await emd.provider.open(emd.target, make_inference())


@async_test
async def test_cancel_open_while_waiting_for_response() -> None:
    async with deployed_emd(error_response("InternalFailure", after=asyncio.Event())) as emd:
        opening = asyncio.create_task(emd.provider.open(emd.target, make_inference()))
        await within_deadline(emd.aws.wait_for_calls(1, "InvokeEndpointWithResponseStream"))
        opening.cancel()
        await asyncio.wait([opening])
        await within_deadline(emd.aws.wait_until_idle())
