"""Retry, circuit breaker and limiter together: what reaches a failing upstream, and what its clients get."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

import pytest
from aiohttp import web

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test, wait_until
from tests.running_server import RunningServer, running_server, spin_until, upstream_model
from tests.server.checks import check_error
from tests.server.observability.scraping import scrape
from tests.storms import Storm, count_statuses, rotate_answers, start_storm
from tests.upstream import CUT, Responder, Upstream, error_response, stream_response

NO_BREAKER = {"failures": 10_000}
ONCE = {"attempts": 1}
JITTER = 0.1  # seconds that a call may be late at the upstream


async def get_breaker_state(server: RunningServer) -> str:
    (state,) = (await scrape(server)).by_label("breaker_state", "state")
    return state


async def open_breaker(storm: Storm) -> None:
    """Let one call break off after its first token."""
    storm.upstream.response = stream_response(["a", CUT])
    await storm.send(1)
    assert await get_breaker_state(storm.server) == "open"


async def wait_until_half_open(storm: Storm) -> None:
    while await get_breaker_state(storm.server) == "open":
        pass


# --- the rate limit --------------------------------------------------------------------------------


@pytest.mark.parametrize(("per_second", "requests", "attempts"), [(20, 20, 2), (2.5, 1, 3), (0.8, 1, 2)])
@async_test
async def test_retry_calls_stay_within_the_rate_limit(
    tmp_path: Path, per_second: float, requests: int, attempts: int
) -> None:
    retry = {"attempts": attempts, "backoff": 0.001, "deadline": 60}
    async with start_storm(tmp_path, concurrency={"per_second": per_second}, retry=retry, breaker=NO_BREAKER) as storm:
        storm.upstream.response = error_response(500)
        assert count_statuses(await storm.send(requests)) == {500: requests}
        times = [request.received_at for request in storm.upstream.requests]
        assert len(times) == requests * attempts
        for (first, start), (last, end) in combinations(enumerate(sorted(times)), 2):
            assert last - first + 1 <= max(per_second, 1) + per_second * (end - start + JITTER)


@async_test
async def test_full_queue_rejects_at_once_without_retry(tmp_path: Path) -> None:
    retry = {"attempts": 5, "backoff": 600, "deadline": 3600}
    async with start_storm(tmp_path, concurrency={"calls": 1, "queue": 1}, retry=retry) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response([gate, "Hello"])
        calls = storm.send(2)
        await wait_until(lambda: storm.controller().waiting == 1)
        (rejected,) = await storm.send(1)
        check_error(rejected, 429, "rate_limited", "1 are waiting already")
        gate.set()
        assert count_statuses(await calls) == {200: 2}
        assert (await scrape(storm.server))("retries_total") == 0


@async_test
async def test_retry_that_meets_a_full_queue_returns_the_upstream_error(tmp_path: Path) -> None:
    limits = {"per_second": 0.01, "queue": 0}
    async with start_storm(tmp_path, concurrency=limits, retry={"attempts": 3, "backoff": 0.001}) as storm:
        storm.upstream.response = error_response(500, "out of memory")
        (failed,) = await storm.send(1)
        check_error(failed, 500, "model_error", "out of memory")
        assert len(storm.upstream.requests) == 1


@async_test
async def test_request_that_waits_for_retry_after_holds_no_permit(tmp_path: Path) -> None:
    retry = {"attempts": 2, "deadline": 3600}
    async with start_storm(tmp_path, concurrency={"calls": 1, "queue": 0}, retry=retry) as storm:
        busy = error_response(429, "busy", headers={"Retry-After": "600"})
        storm.upstream.response = rotate_answers(busy, stream_response(["Hello"]), stream_response(["Hello"]))
        waiting = storm.send(1)
        while (await scrape(storm.server))("retries_total", model="m") == 0:
            pass
        assert (storm.controller().running, storm.server.services.streams.running_count) == (0, 1)
        assert count_statuses([*await storm.send(1), *await storm.send(1)]) == {200: 2}
        waiting.cancel()


# --- the circuit breaker ---------------------------------------------------------------------------


@async_test
async def test_breaker_opens_after_exactly_its_failures_with_retries(tmp_path: Path) -> None:
    breaker, retry = {"failures": 5, "seconds": 600}, {"attempts": 3, "backoff": 0.001}
    async with start_storm(tmp_path, breaker=breaker, retry=retry) as storm:
        storm.upstream.response = error_response(500, "out of memory")
        first, second, third = [(await storm.send(1))[0] for _ in range(3)]
        check_error(first, 500, "model_error", "out of memory")
        check_error(second, 500, "model_error", "out of memory")  # its second retry met the open breaker
        check_error(third, 503, "unavailable", "m failed 5 times in a row")
        assert [text.strip() for text in storm.received_texts] == ["1", "1", "1", "2", "2"]


@pytest.mark.parametrize("attempts", [1, 3])
@async_test
async def test_breaker_stops_calls_that_wait_in_the_queue(tmp_path: Path, attempts: int) -> None:
    retry = {"attempts": attempts, "backoff": 0.001}
    async with start_storm(
        tmp_path, concurrency={"calls": 1}, breaker={"failures": 3, "seconds": 600}, retry=retry
    ) as storm:
        gate = asyncio.Event()
        failure = error_response(500, "out of memory")
        storm.upstream.response = lambda request: wait_and_fail(gate, failure, request)
        calls = storm.send(20)
        await wait_until(lambda: storm.controller().waiting == 19)
        gate.set()
        answers = await calls
        assert len(storm.upstream.requests) == 3
        failed_texts = len(set(storm.received_texts))
        assert count_statuses(answers) == {500: failed_texts, 503: 20 - failed_texts}


@async_test
async def test_probe_that_leaves_the_queue_lets_another_probe_start(tmp_path: Path) -> None:
    limits = {"calls": 2, "queue": 5}
    breaker = {"failures": 1, "seconds": 0.1}
    async with start_storm(tmp_path, concurrency=limits, breaker=breaker, retry=ONCE) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response(["a", gate])
        running = storm.send(1)
        await storm.upstream.wait_for_requests(1)
        await open_breaker(storm)
        await storm.reload(concurrency={"calls": 1, "queue": 5})
        await wait_until_half_open(storm)
        for _ in range(3):
            probe = storm.send(1)
            await wait_until(lambda: storm.controller().waiting == 1)
            check_error((await storm.send(1))[0], 503, "unavailable")  # one probe at a time
            probe.cancel()
            await spin_until(lambda: storm.controller().waiting == 0)
            assert await get_breaker_state(storm.server) == "half_open"
        storm.upstream.response = stream_response(["back"])
        probe = storm.send(1)
        await wait_until(lambda: storm.controller().waiting == 1)
        gate.set()
        assert count_statuses([*await running, *await probe]) == {200: 2}
        assert await get_breaker_state(storm.server) == "closed"
        assert len(storm.upstream.requests) == 3


@async_test
async def test_probe_that_meets_a_full_queue_counts_neither_way(tmp_path: Path) -> None:
    breaker = {"failures": 1, "seconds": 0.1}
    async with start_storm(tmp_path, concurrency={"calls": 2}, breaker=breaker, retry=ONCE) as storm:
        gate = asyncio.Event()
        storm.upstream.response = stream_response(["a", gate])
        running = storm.send(1)
        await storm.upstream.wait_for_requests(1)
        await open_breaker(storm)
        await storm.reload(concurrency={"calls": 1, "queue": 0})
        await wait_until_half_open(storm)
        for _ in range(3):
            check_error((await storm.send(1))[0], 429, "rate_limited")
            assert await get_breaker_state(storm.server) == "half_open"
        gate.set()
        assert count_statuses(await running) == {200: 1}


@async_test
async def test_missing_credentials_do_not_open_the_breaker(tmp_path: Path) -> None:
    async with Upstream() as up:
        model = upstream_model(up.base_url, api_key_env="FORGELINE_TEST_UNSET", breaker={"failures": 1}, retry=ONCE)
        async with running_server(tmp_path, models={"m": model}, stages=list(DEFAULT_STAGES)) as server:
            for _ in range(3):
                answer = await server.post("/api/models/m", {"text": "hi"})
                check_error(answer, 503, "unavailable", "FORGELINE_TEST_UNSET", "is not set")
        assert up.requests == []


async def wait_and_fail(gate: asyncio.Event, failure: Responder, request: web.Request) -> web.StreamResponse:
    await gate.wait()
    return await failure(request)
