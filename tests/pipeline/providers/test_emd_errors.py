"""emd, refused: every row of what SageMaker, the router and AWS's accounts say, in our tree, and without secrets."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, ModelNotDeployed, RateLimited, Unavailable
from tests.aio import asynchronous, soon
from tests.aws import BAD_CHECKSUM, CUT, Key, errs, fails, raises, says
from tests.pipeline.providers.asking import inference, read_all
from tests.pipeline.providers.on_emd import PLAIN, emd, failure, talking

pytestmark = pytest.mark.slow  # each row of the table is a world of its own to set up

SECRETS = (
    "in account 123456789012 with AKIAFORGELINETEST000, see https://logs.example/x?X-Amz-Signature=abc and"
    " arn:aws:sts::123456789012:assumed-role/r/session"
)
LEAKS = ("123456789012", "AKIA", "X-Amz", "assumed-role")


def check_secrets(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error))
    assert not [leak for leak in LEAKS if leak in str(error)]
    assert not [leak for leak in LEAKS if leak in shown]


ROWS: list[tuple[str, dict[str, Any], type[ForgelineError], bool]] = [
    ("ValidationError", {}, InvalidRequest, False),
    ("ModelNotReadyException", {}, RateLimited, True),
    ("ThrottlingException", {}, RateLimited, True),
    ("ServiceUnavailable", {}, Unavailable, True),
    ("InternalFailure", {}, ModelError, True),
    ("InternalDependencyException", {}, ModelError, True),
    ("AccessDeniedException", {}, Unavailable, False),
    ("ExpiredTokenException", {}, Unavailable, False),
]


@pytest.mark.parametrize("capabilities", [("text", "stream"), PLAIN], ids=["streamed", "plain"])
@pytest.mark.parametrize(("code", "fields", "expected", "retryable"), ROWS, ids=[row[0] for row in ROWS])
@asynchronous
async def test_each_of_sagemakers_errors_has_its_class_and_its_words(
    code: str, fields: dict[str, Any], expected: type, retryable: bool, capabilities: tuple[str, ...]
) -> None:
    error = await failure(fails(code, f"upstream's words {SECRETS}", **fields), capabilities=capabilities)
    assert type(error) is expected
    assert error.retryable == retryable
    assert ("upstream's words" in error.message) == (code not in {"AccessDeniedException", "ExpiredTokenException"})
    check_secrets(error)


@pytest.mark.parametrize(
    ("status", "expected"), [(500, ModelError), (503, ModelError), (400, InvalidRequest), (422, InvalidRequest)]
)
@asynchronous
async def test_the_containers_own_error_is_told_in_its_own_words(status: int, expected: type) -> None:
    said = fails(
        "ModelError",
        f"Received server error from primary, see {SECRETS}",
        OriginalStatusCode=status,
        OriginalMessage='{"error": "CUDA out of memory ' + SECRETS + '"}',
        LogStreamArn="arn:aws:logs:us-west-2:123456789012:log-group:x",
    )
    error = await failure(said)
    assert type(error) is expected
    assert "CUDA out of memory" in error.message
    assert "Received server error" not in error.message
    assert not error.retryable
    check_secrets(error)


@pytest.mark.parametrize(
    ("piece", "says_"),
    [
        (raises("ModelStreamError", "the stream broke " + SECRETS, ErrorCode="StreamBroken"), "the stream broke"),
        (raises("InternalStreamFailure", "inside " + SECRETS), "inside"),
        (errs("InternalFailure", "unmodelled " + SECRETS), "unmodelled"),
        ({"error": "CUDA out of memory " + SECRETS}, "CUDA out of memory"),
        (BAD_CHECKSUM, "damaged"),
        (CUT, "broke off"),
        (b"rubbish\n", "not a chunk"),
    ],
    ids=["ModelStreamError", "InternalStreamFailure", "error event", "error line", "checksum", "cut", "rubbish"],
)
@pytest.mark.parametrize("first", [True, False], ids=["at first", "in mid-stream"])
@asynchronous
async def test_what_breaks_a_stream_is_a_model_error_after_the_text_before_it(
    piece: Any, says_: str, first: bool
) -> None:
    if first:
        error: BaseException = await failure(says(piece))
    else:
        async with talking(says("Hello", piece)) as world:
            reply = await world.provider.open(world.route, inference())
            parts = aiter(reply)
            assert await anext(parts) == ["Hello"]
            with pytest.raises(ModelError) as caught:
                await anext(parts)
            await reply.aclose()
            await soon(world.aws.idle())
            error = caught.value
    assert type(error) is ModelError
    assert says_ in str(error)
    check_secrets(error)


@pytest.mark.parametrize("finish", [None, "end_turn"])
@asynchronous
async def test_a_stream_that_ends_without_a_reason_to_stop_is_no_short_answer(finish: str | None) -> None:
    async with talking(says("Hello", stop=finish, usage=None)) as world:
        reply = await world.provider.open(world.route, inference())
        if finish is None:
            with pytest.raises(ModelError, match="broke off"):
                await read_all(reply)
        else:
            assert (await read_all(reply))[0] == "Hello"


# --- the router ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, InvalidRequest), (429, RateLimited), (500, ModelError), (502, ModelError), (503, Unavailable)],
)
@asynchronous
async def test_a_refusal_of_the_router_is_told_in_its_words(status: int, expected: type) -> None:
    error = await failure(fails("", f"upstream's words {SECRETS}", status), service="ecs")
    assert type(error) is expected
    assert "upstream's words" in error.message
    check_secrets(error)


@asynchronous
async def test_an_error_in_the_routers_stream_is_masked_too() -> None:
    async with talking(says("Hello", raises("x", f"boom {SECRETS}")), "ecs") as world:
        reply = await world.provider.open(world.route, inference())
        with pytest.raises(ModelError, match="boom") as caught:
            await read_all(reply)
        check_secrets(caught.value)


# --- credentials -----------------------------------------------------------------------------------


@asynchronous
async def test_without_credentials_it_says_what_to_deploy_and_how_to_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd() as world:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(ModelNotDeployed, match=r"emd deploy --model-id .*  # No AWS credentials were found"):
            await world.provider.open(world.route, inference())
        found = await world.provider.deployment(world.models["gemma"])
        assert found.status == "unknown"
        assert "No AWS credentials" in (found.reason or "")
        told = await world.provider.availability(world.models["gemma"])
        assert (told.status, told.reason) == ("unknown", found.reason)


@asynchronous
async def test_a_wrong_secret_is_unavailable() -> None:
    async with emd() as world:
        world.aws.keys["AKIAFORGELINETEST000"] = Key("another")
        with pytest.raises(Unavailable, match="AWS refused the credentials") as caught:
            await world.provider.open(world.route, inference())
        check_secrets(caught.value)


@asynchronous
async def test_a_region_that_nobody_named_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd(region=None) as world:
        monkeypatch.delenv("AWS_REGION")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(Unavailable, match="No AWS region is known"):
            await world.provider.open(world.route, inference())


@asynchronous
async def test_an_open_that_waits_for_an_answer_can_be_cancelled() -> None:
    async with talking(fails("InternalFailure", after=asyncio.Event())) as world:
        opening = asyncio.create_task(world.provider.open(world.route, inference()))
        await soon(world.aws.asked(1, "InvokeEndpointWithResponseStream"))
        opening.cancel()
        await asyncio.wait([opening])
        await soon(world.aws.idle())
