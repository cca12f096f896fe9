"""The OpenAI-compatible provider, refused: each error in our tree, in the upstream's words, and without the key."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.providers import chat_http
from pipeline.providers.openai_compatible import create
from pipeline.stage import Context
from tests.aio import asynchronous
from tests.pipeline.providers.asking import (
    KEY,
    PLAIN,
    failure,
    inference,
    provider,
    route,
)
from tests.upstream import CUT, Answer, raw, refusal


@pytest.mark.parametrize(
    ("status", "expected", "says"),
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
@asynchronous
async def test_a_refusal_is_told_in_our_words_and_the_upstreams(status: int, expected: type, says: str) -> None:
    error = await failure(refusal(status, {"message": "upstream's words"}, headers={"Location": "http://elsewhere/"}))
    assert type(error) is expected
    assert says in error.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": "a bare string"}', "a bare string"),
        (b'{"object": "error", "message": "at the top"}', "at the top"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required"}, {"msg": "and more"}]}', "field required; and more"),
        (b"plain text\nover lines", "plain text over lines"),
        (b"\xff\xfe", "\ufffd"),
        (b"", "refused the request."),
    ],
)
@asynchronous
async def test_the_upstreams_words_are_found_in_whatever_shape_they_come(body: bytes, says: str) -> None:
    assert says in (await failure(raw([body], status=400))).message


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
@asynchronous
async def test_retry_after_is_passed_on(status: int, header: str | None, seconds: float | None) -> None:
    error = await failure(refusal(status, headers={} if header is None else {"Retry-After": header}))
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("retryable", "these"), [(True, [429, 500, 502, 503]), (False, [302, 400, 401, 404, 408, 413, 418, 422, 504])]
)
@asynchronous
async def test_only_what_may_pass_and_was_not_begun_can_be_retried(retryable: bool, these: list[int]) -> None:
    assert [(await failure(refusal(status))).retryable for status in these] == [retryable] * len(these)


@asynchronous
async def test_a_refusal_whose_body_never_ends_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_http, "ERROR_BODY_TIME", 0.05)
    error = await failure(raw([b"what there is", asyncio.Event()], status=500))
    assert "what there is" in error.message


@asynchronous
async def test_a_refusal_of_many_megabytes_is_not_read_to_its_end() -> None:
    error = await failure(raw([b"no " * 3_000_000], status=500))
    assert len(error.message) < 600


@pytest.mark.parametrize(
    "answer",
    [
        raw([b"<html>hello</html>\n"], headers={"Content-Type": "text/html"}),
        raw([b"hello"]),
        raw([b'{"object": "list", "data": []}']),
        raw([b""]),
        raw([b"not gzip at all"], headers={"Content-Encoding": "gzip"}),
    ],
    ids=["html", "no json", "other json", "nothing", "broken gzip"],
)
@pytest.mark.parametrize("capabilities", [("text", "stream"), PLAIN], ids=["streamed", "plain"])
@asynchronous
async def test_a_success_that_is_no_completion_is_a_model_error(answer: Answer, capabilities: tuple[str, ...]) -> None:
    assert type(await failure(answer, capabilities=capabilities)) is ModelError


@asynchronous
async def test_a_plain_answer_that_is_cut_is_a_model_error() -> None:
    error = await failure(raw([b'{"choices": [{"message": {"content": "Hel', CUT]), capabilities=PLAIN)
    assert "broke off" in error.message


# --- presets and keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ({}, "no base_url"),
        ({"base_url": "localhost:8000/v1"}, "http://"),
        ({"base_url": "http://[::1/v1"}, "not an address"),
        ({"base_url": "http:///v1"}, "name a host"),
        ({"base_url": "http://h/v1", "api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ({"base_url": "http://h/v1", "api_key_env": "BAD_KEY"}, "BAD_KEY"),
    ],
)
@asynchronous
async def test_an_incomplete_preset_is_unavailable_and_says_what_it_lacks(
    preset: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_KEY", f"{KEY}\nInjected: header")
    async with provider() as asking:
        availability = await asking.availability(route(**preset).preset)
        assert availability.status == "unavailable"
        assert says in (availability.reason or "")
        with pytest.raises(Unavailable) as caught:
            await asking.open(route(**preset), inference())
        assert caught.value.message == availability.reason
        assert KEY not in str(caught.value)


@asynchronous
async def test_a_complete_preset_is_available_without_asking_the_network() -> None:
    async with provider() as asking:
        assert (await asking.availability(route(base_url="http://nowhere.invalid/v1").preset)).status == "available"


@asynchronous
async def test_a_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    async with provider() as asking:
        with pytest.raises(Unavailable) as caught:
            await asking.open(
                route(base_url="http://user:hunter2@127.0.0.1:1/v1", api_key_env="UPSTREAM_KEY"), inference()
            )
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500, 503])
@asynchronous
async def test_a_key_that_the_upstream_repeats_is_never_shown(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    error = await failure(refusal(status, f"Incorrect API key provided: {KEY}"), api_key_env="UPSTREAM_KEY")
    assert KEY not in "".join(traceback.format_exception(error)) + repr(error)


def test_it_takes_no_options() -> None:
    with pytest.raises(ValueError, match="speed"):
        create({"speed": 1}, Context())
