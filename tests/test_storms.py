"""Upstreams that are overloaded, throttle, hang, die and recover, with and without a reload in the middle.

After each test every call has its answer, nothing is open, and all permits are released.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.async_tests import async_test, wait_until
from tests.running_server import spin_until
from tests.server.checks import check_error, check_stream
from tests.server.observability.scraping import scrape
from tests.storms import Storm, count_statuses, reject_every_third, rotate_answers, start_storm
from tests.upstream import CUT, error_response, hanging_response, stream_response

NO_BREAKER = {"failures": 10_000}
ONCE = {"attempts": 1}


async def no_reload(storm: Storm) -> None:
    """Change nothing."""


async def reload_preset(storm: Storm) -> None:
    await storm.reload()


with_and_without_reload = pytest.mark.parametrize(
    "disrupt", [no_reload, pytest.param(reload_preset, marks=pytest.mark.slow)]
)
Disruption = Callable[[Storm], Awaitable[None]]


@with_and_without_reload
@async_test
async def test_queue_admits_500_calls_with_8_concurrent(tmp_path: Path, disrupt: Disruption) -> None:
    async with start_storm(tmp_path, concurrency={"calls": 8, "queue": 492}) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response([gate, "Hello"])
        calls = storm.send(500)
        await wait_until(lambda: storm.upstream.in_flight == 8 and storm.controller().waiting == 492)
        gate.set()
        await storm.upstream.wait_for_requests(100)
        await disrupt(storm)
        assert count_statuses(await calls) == {200: 500}
        assert (storm.upstream.max_in_flight, len(storm.received_texts), len(set(storm.received_texts))) == (
            8,
            500,
            500,
        )


@with_and_without_reload
@async_test
async def test_full_queue_of_42_rejects_450_of_500_calls(tmp_path: Path, disrupt: Disruption) -> None:
    async with start_storm(tmp_path, concurrency={"calls": 8, "queue": 42}) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response([gate, "Hello"])
        calls = storm.send(500)
        await wait_until(lambda: storm.server.services.streams.running_count == 50 and storm.upstream.in_flight == 8)
        await disrupt(storm)
        assert storm.controller().waiting == 42
        gate.set()
        answers = await calls
        assert count_statuses(answers) == {200: 50, 429: 450}
        assert (storm.upstream.max_in_flight, len(storm.received_texts)) == (8, 50)
        for answer in answers:
            if answer.status == 429:
                check_error(answer, 429, "rate_limited", "waiting already")


@with_and_without_reload
@async_test
async def test_retry_survives_throttling_of_every_third_call(tmp_path: Path, disrupt: Disruption) -> None:
    async with start_storm(tmp_path, retry={"attempts": 30, "backoff": 0.002}) as storm:
        storm.upstream.response = reject_every_third(error_response(429))
        calls = storm.send(60)
        await storm.upstream.wait_for_requests(30)
        await disrupt(storm)
        assert count_statuses(await calls) == {200: 60}
        assert len(storm.received_texts) == 60 + 29  # every third of 89 calls is throttled and repeated
        assert (await scrape(storm.server))("retries_total", model="m") == 29


@with_and_without_reload
@async_test
async def test_retry_after_is_followed_by_all_calls(tmp_path: Path, disrupt: Disruption) -> None:
    async with start_storm(tmp_path, retry={"attempts": 30, "backoff": 0.001}) as storm:
        storm.upstream.response = reject_every_third(error_response(429, headers={"Retry-After": "0.3"}))
        started_at = asyncio.get_running_loop().time()
        calls = storm.send(20)
        await storm.upstream.wait_for_requests(20)
        await disrupt(storm)
        await storm.upstream.wait_for_requests(21)
        assert asyncio.get_running_loop().time() - started_at >= 0.3
        assert count_statuses(await calls) == {200: 20}


@with_and_without_reload
@async_test
async def test_first_token_timeout_fails_all_calls_without_retry(tmp_path: Path, disrupt: Disruption) -> None:
    async with start_storm(
        tmp_path, timeouts={"first_token": 0.3}, breaker=NO_BREAKER, concurrency={"calls": 20, "queue": 20}
    ) as storm:
        storm.upstream.response = hanging_response()
        calls = storm.send(40)
        await storm.upstream.wait_for_requests(20)
        await disrupt(storm)
        answers = await calls
        assert count_statuses(answers) == {503: 40}
        check_error(answers[0], 503, "unavailable", "did not begin to answer")
        assert (
            len(storm.received_texts) == len(set(storm.received_texts)) == 40
        )  # no retry: the upstream may still work
        await storm.upstream.wait_until_idle()
        assert storm.upstream.cancelled == 40


@pytest.mark.parametrize("end", ["hangs", "breaks off"])
@with_and_without_reload
@async_test
async def test_upstream_that_ends_after_three_tokens_fails_without_retry(
    tmp_path: Path, disrupt: Disruption, end: str
) -> None:
    async with start_storm(tmp_path, timeouts={"between_tokens": 0.8}, breaker=NO_BREAKER) as storm:
        storm.upstream.response = stream_response(["a", "b", "c", asyncio.Event() if end == "hangs" else CUT])
        calls = storm.send(40, "/api/stream/m")
        await storm.upstream.wait_for_requests(20)
        await disrupt(storm)
        for answer in await calls:
            assert [event["delta"] for event in answer.events if event["type"] == "chunk"] == ["a", "b", "c"]
            assert check_stream(answer.events)["m"]["code"] == ("unavailable" if end == "hangs" else "model_error")
        assert len(storm.received_texts) == len(set(storm.received_texts)) == 40
        assert (await scrape(storm.server))("retries_total") == 0


@pytest.mark.slow
@with_and_without_reload
@async_test
async def test_idle_timeout_between_any_two_tokens_keeps_received_tokens(tmp_path: Path, disrupt: Disruption) -> None:
    tokens = list("abcdef")
    async with start_storm(
        tmp_path, timeouts={"first_token": 3.0, "between_tokens": 3.0}, breaker=NO_BREAKER, retry=ONCE
    ) as storm:
        answers_with_a_hang = [stream_response([*tokens[:n], asyncio.Event(), *tokens[n:]]) for n in range(7)]
        storm.upstream.response = rotate_answers(*answers_with_a_hang)
        calls = storm.send(70, "/api/stream/m")
        await storm.upstream.wait_for_requests(35)
        await disrupt(storm)
        answers = await calls
        texts: Counter[str] = Counter()
        for answer in answers:
            if answer.status == 503:
                texts[""] += 1
            else:
                assert check_stream(answer.events)["m"]["code"] == "unavailable"
                texts["".join(event.get("delta", "") for event in answer.events)] += 1
        assert texts == {"abcdef"[:n]: 10 for n in range(7)}


@with_and_without_reload
@async_test
async def test_breaker_opens_while_upstream_is_down_and_closes_after(tmp_path: Path, disrupt: Disruption) -> None:
    retry = {"attempts": 2, "backoff": 0.001}
    async with start_storm(tmp_path, breaker={"failures": 3, "seconds": 0.5}, retry=retry) as storm:
        assert count_statuses(await storm.send(10)) == {200: 10}
        await storm.upstream.stop()
        # Two calls of the first request and one of the second, whose retry meets the open breaker.
        answers = [(await storm.send(1))[0] for _ in range(2)]
        assert ["Cannot reach" in answer.json["error"] for answer in answers] == [True] * 2
        await disrupt(storm)
        for answer in await storm.send(50):
            check_error(answer, 503, "unavailable", "m failed 3 times in a row")
        assert (await scrape(storm.server))("retries_total", model="m") == 2  # the 50 requests were not retried
        await check_recovery(storm)


async def check_recovery(storm: Storm) -> None:
    """Start the upstream again: one probe succeeds, then all calls do."""
    gate = asyncio.Event()
    storm.upstream.response = stream_response([gate, "Hello"])
    await storm.upstream.start()
    received = len(storm.received_texts)
    while (await scrape(storm.server)).by_label("breaker_state", "state") != {"half_open": 1}:
        pass
    calls = storm.send(20)
    await storm.upstream.wait_for_requests(received + 1)
    await wait_until(lambda: storm.server.services.streams.running_count == 1)
    assert len(storm.received_texts) == received + 1
    gate.set()
    assert count_statuses(await calls) == {200: 1, 503: 19}
    assert count_statuses(await storm.send(20)) == {200: 20}


@with_and_without_reload
@async_test
async def test_upstream_that_dies_is_retried_only_before_the_first_token(tmp_path: Path, disrupt: Disruption) -> None:
    async with start_storm(tmp_path, breaker=NO_BREAKER, retry={"attempts": 200, "backoff": 0.02}) as storm:
        storm.upstream.response = rotate_answers(hanging_response(), stream_response(["a", asyncio.Event()]))
        calls = storm.send(40, "/api/stream/m")
        await storm.upstream.wait_for_requests(40)
        storm.upstream.response = stream_response(["Hello"])
        await storm.upstream.stop()
        await disrupt(storm)
        await storm.upstream.start()
        outcomes = Counter(check_stream(answer.events)["m"]["type"] for answer in await calls)
        assert outcomes == {"error": 20, "result": 20}  # only calls without a token were retried
        assert set(Counter(storm.received_texts).values()) == {1, 2}
        assert len(storm.received_texts) == 60


@with_and_without_reload
@async_test
async def test_second_fallback_answers_when_first_fails(tmp_path: Path, disrupt: Disruption) -> None:
    other_models = {
        "x": {"timeouts": {"first_token": 0.2}, "breaker": NO_BREAKER, "concurrency": {"calls": 15}},
        "y": {"retry": {"attempts": 30, "backoff": 0.001}},
    }
    fallback = ["x", "nobody", "y"]
    async with start_storm(
        tmp_path, other_models=other_models, fallback=fallback, retry=ONCE, breaker=NO_BREAKER
    ) as storm:
        throttled = reject_every_third(error_response(429))
        storm.upstream.responses = {"m": error_response(500), "x": hanging_response(), "y": throttled}
        calls = storm.send(30)
        await storm.upstream.wait_for_requests(40)
        await disrupt(storm)
        answers = await calls
        assert count_statuses(answers) == {200: 30}
        assert {(a.json["metadata"]["model"], a.json["metadata"]["fallback_from"]) for a in answers} == {("y", "m")}
        requests = Counter(request.body["model"] for request in storm.upstream.requests)
        assert requests == {"m": 30, "x": 30, "y": 30 + 14}
        assert (await scrape(storm.server)).by_label("fallbacks_total", "model") == {"m": 90}


@with_and_without_reload
@async_test
async def test_error_of_requested_model_is_returned_when_all_fallbacks_fail(
    tmp_path: Path, disrupt: Disruption
) -> None:
    async with start_storm(tmp_path, other_models={"x": None}, fallback=["x"], concurrency={"calls": 4}) as storm:
        storm.upstream.responses = {"m": error_response(400, "too long"), "x": error_response(500, "x is ill")}
        assert count_statuses(await storm.send(10)) == {400: 10}  # an invalid request gets no fallback
        storm.upstream.responses["m"] = error_response(401)
        calls = storm.send(30)
        await storm.upstream.wait_for_requests(15)
        await disrupt(storm)
        for answer in await calls:
            assert answer.status == 503
            assert "x is ill" not in answer.json["error"]


@async_test
async def test_queue_serves_keys_round_robin_under_load(tmp_path: Path) -> None:
    async with start_storm(tmp_path, keys="greedy,modest", concurrency={"calls": 4, "queue": 300}) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response([gate, "Hello"])
        many = storm.send(200, **{"X-API-Key": "greedy"})
        await wait_until(lambda: storm.server.services.streams.running_count == 200)
        few = storm.send(10, **{"X-API-Key": "modest"})
        await wait_until(lambda: storm.controller().waiting == 206)
        gate.set()
        assert (count_statuses(await many), count_statuses(await few)) == ({200: 200}, {200: 10})
        keys = [text.split()[0] for text in storm.received_texts]
        assert keys[:4] == ["greedy"] * 4
        assert Counter(keys[4:26])["modest"] == 10  # round robin


@async_test
async def test_rate_per_key_is_independent(tmp_path: Path) -> None:
    limits = {"queue": 0, "per_key": {"per_second": 3}}
    async with start_storm(tmp_path, keys="one,two", concurrency=limits) as storm:
        for key in ("one", "two"):
            answers = await storm.send(10, **{"X-API-Key": key})
            assert count_statuses(answers) == {200: 3, 429: 7}
            assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}


@async_test
async def test_disconnected_clients_release_their_permits(tmp_path: Path) -> None:
    async with start_storm(tmp_path, concurrency={"calls": 8, "queue": 500}) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response(["a", gate, "b"])
        leaving, staying = storm.send(100, "/api/stream/m"), storm.send(100)
        await wait_until(lambda: storm.server.services.streams.running_count == 200)
        leaving.cancel()
        await spin_until(lambda: storm.server.services.streams.running_count == 100)
        gate.set()
        assert count_statuses(await staying) == {200: 100}
        assert storm.upstream.max_in_flight <= 16  # the upstream may not have noticed the cancelled calls yet


@async_test
async def test_reloaded_limits_apply_at_once_to_queue_and_breaker(tmp_path: Path) -> None:
    concurrency = {"calls": 2, "queue": 50}
    async with start_storm(tmp_path, concurrency=concurrency, breaker={"failures": 3}, retry=ONCE) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response([gate, "Hello"])
        calls = storm.send(20)
        await wait_until(lambda: storm.controller().waiting == 18)
        await storm.reload(concurrency={"calls": 10, "queue": 50})
        additional_call = storm.send(1)
        await wait_until(lambda: storm.upstream.in_flight == 10)
        assert storm.controller().waiting == 11
        gate.set()
        assert count_statuses([*await calls, *await additional_call]) == {200: 21}
        storm.upstream.response = error_response(500)
        assert count_statuses(await storm.send(1) + await storm.send(1)) == {500: 2}
        await storm.reload(breaker={"failures": 2, "seconds": 30})
        assert count_statuses(await storm.send(1) + await storm.send(1)) == {500: 1, 503: 1}
