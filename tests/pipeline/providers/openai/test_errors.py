"""Errors of the OpenAI-compatible provider: translated, with the upstream's message, and without the API key."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.providers.openai import http
from pipeline.stage import Context
from tests.async_tests import async_test
from tests.pipeline.factories import create_provider
from tests.pipeline.providers.helpers import (
    API_KEY,
    WITHOUT_STREAM,
    catch_open_error,
    make_inference,
    make_target,
    openai_provider,
)
from tests.upstream import CUT, Responder, error_response, raw_response


@pytest.mark.parametrize(
    ("status", "expected", "message"),
    [
        (400, InvalidRequest, "refused the request: upstream's words"),
        (422, InvalidRequest, "upstream's words"),
        (413, InvalidRequest, "too large"),
        (401, Unavailable, "refused our credentials."),
        (403, Unavailable, "refused our credentials."),
        (404, Unavailable, "no such model or address: upstream's words"),
        (408, Unavailable, "timed out"),
        (429, RateLimited, "upstream's words"),
        (500, ModelError, "failed (500): upstream's words"),
        (502, ModelError, "upstream's words"),
        (503, Unavailable, "not available now"),
        (504, Unavailable, "timed out"),
        (418, ModelError, "failed (418)"),
        (302, ModelError, "redirect (302): is its base_url right?"),
    ],
)
@async_test
async def test_error_status_has_class_and_both_messages(status: int, expected: type, message: str) -> None:
    error = await catch_open_error(
        error_response(status, {"message": "upstream's words"}, headers={"Location": "http://elsewhere/"})
    )
    assert type(error) is expected
    assert message in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "a bare string"}', "a bare string"),
        (b'{"object": "error", "message": "at the top"}', "at the top"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required"}, {"msg": "and more"}]}', "field required; and more"),
        (b"plain text\nover lines", "plain text over lines"),
        (b"\xff\xfe", "\ufffd"),
        (b"", "refused the request."),
    ],
)
@async_test
async def test_error_body_of_any_shape_gives_upstream_message(body: bytes, message: str) -> None:
    assert message in (await catch_open_error(raw_response([body], status=400))).message


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "7", 7.0),
        (429, "0.5", 0.5),
        (429, None, None),
        (429, "Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (429, "soon", None),
        (429, "nan", None),
        (503, "30", 30.0),
        (503, None, None),
    ],
)
@async_test
async def test_retry_after_header_is_passed_on(status: int, header: str | None, seconds: float | None) -> None:
    error = await catch_open_error(error_response(status, headers={} if header is None else {"Retry-After": header}))
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("retryable", "statuses"), [(True, [429, 500, 502, 503]), (False, [302, 400, 401, 404, 408, 413, 418, 422, 504])]
)
@async_test
async def test_retryable_statuses(retryable: bool, statuses: list[int]) -> None:
    assert [(await catch_open_error(error_response(status))).retryable for status in statuses] == [retryable] * len(
        statuses
    )


@async_test
async def test_error_body_that_never_ends_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ERROR_BODY_SECONDS", 0.05)
    error = await catch_open_error(raw_response([b"what there is", asyncio.Event()], status=500))
    assert "what there is" in error.message


@async_test
async def test_error_body_over_limit_is_truncated() -> None:
    error = await catch_open_error(raw_response([b"no " * 3_000_000], status=500))
    assert len(error.message) < 600


@pytest.mark.parametrize(
    "responder",
    [
        raw_response([b"<html>hello</html>\n"], headers={"Content-Type": "text/html"}),
        raw_response([b"hello"]),
        raw_response([b'{"object": "list", "data": []}']),
        raw_response([b""]),
        raw_response([b"not gzip at all"], headers={"Content-Encoding": "gzip"}),
    ],
    ids=["html", "no json", "other json", "nothing", "broken gzip"],
)
@pytest.mark.parametrize("capabilities", [("text", "stream"), WITHOUT_STREAM], ids=["streamed", "plain"])
@async_test
async def test_status_200_without_completion_is_model_error(
    responder: Responder, capabilities: tuple[str, ...]
) -> None:
    assert type(await catch_open_error(responder, capabilities=capabilities)) is ModelError


@async_test
async def test_cut_json_response_is_model_error() -> None:
    error = await catch_open_error(
        raw_response([b'{"choices": [{"message": {"content": "Hel', CUT]), capabilities=WITHOUT_STREAM
    )
    assert "broke off" in error.message


# --- presets and keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({}, "no base_url"),
        ({"base_url": "localhost:8000/v1"}, "http://"),
        ({"base_url": "http://[::1/v1"}, "not an address"),
        ({"base_url": "http:///v1"}, "name a host"),
        ({"base_url": "http://h/v1", "api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ({"base_url": "http://h/v1", "api_key_env": "BAD_KEY"}, "BAD_KEY"),
    ],
)
@async_test
async def test_incomplete_preset_is_unavailable_with_reason(
    preset: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_KEY", f"{API_KEY}\nInjected: header")
    async with openai_provider() as provider:
        availability = await provider.availability(make_target(**preset).preset)
        assert availability.status == "unavailable"
        assert message in (availability.reason or "")
        with pytest.raises(Unavailable) as caught:
            await provider.open(make_target(**preset), make_inference())
        assert caught.value.message == availability.reason
        assert API_KEY not in str(caught.value)


@async_test
async def test_complete_preset_is_available_without_network() -> None:
    async with openai_provider() as provider:
        assert (
            await provider.availability(make_target(base_url="http://nowhere.invalid/v1").preset)
        ).status == "available"


@async_test
async def test_password_in_base_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", API_KEY)
    async with openai_provider() as provider:
        with pytest.raises(Unavailable) as caught:
            await provider.open(
                make_target(base_url="http://user:hunter2@127.0.0.1:1/v1", api_key_env="UPSTREAM_KEY"), make_inference()
            )
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500, 503])
@async_test
async def test_api_key_repeated_by_upstream_is_never_shown(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", API_KEY)
    error = await catch_open_error(
        error_response(status, f"Incorrect API key provided: {API_KEY}"), api_key_env="UPSTREAM_KEY"
    )
    assert API_KEY not in "".join(traceback.format_exception(error)) + repr(error)


def test_create_rejects_options() -> None:
    with pytest.raises(ValueError, match="speed"):
        create_provider("openai_compatible", {"speed": 1}, Context())
