"""Storms: backends that are overrun, throttle, hang, die and come back, with and without a reload in the middle.

After each the server is as it was: every call has its answer, nothing is open, all permits are back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.aio import asynchronous, comes_true
from tests.server.checks import check_error, check_stream
from tests.server.scraping import scrape
from tests.serving import until
from tests.storms import Storm, every_third, in_turn, statuses, storm
from tests.upstream import CUT, hang, refusal, stream_of

NO_BREAKER = {"failures": 10_000}
ONCE = {"attempts": 1}


async def not_at_all(sky: Storm) -> None:
    """No reload."""


async def by_a_reload(sky: Storm) -> None:
    await sky.reload()


struck = pytest.mark.parametrize("strike", [not_at_all, pytest.param(by_a_reload, marks=pytest.mark.slow)])
Strike = Callable[[Storm], Awaitable[None]]


@struck
@asynchronous
async def test_500_calls_at_a_backend_that_takes_8(tmp_path: Path, strike: Strike) -> None:
    async with storm(tmp_path, concurrency={"calls": 8, "queue": 492}) as sky:
        gate = asyncio.Event()
        sky.up.answer = stream_of([gate, "Hello"])
        calls = sky.blow(500)
        await comes_true(lambda: sky.up.answering == 8 and sky.gate().waiting == 492)
        gate.set()
        await sky.up.asked(100)
        await strike(sky)
        assert statuses(await calls) == {200: 500}
        assert (sky.up.most, len(sky.texts), len(set(sky.texts))) == (8, 500, 500)


@struck
@asynchronous
async def test_500_calls_where_42_may_wait(tmp_path: Path, strike: Strike) -> None:
    async with storm(tmp_path, concurrency={"calls": 8, "queue": 42}) as sky:
        gate = asyncio.Event()
        sky.up.answer = stream_of([gate, "Hello"])
        calls = sky.blow(500)
        await comes_true(lambda: sky.server.services.streams.running == 50 and sky.up.answering == 8)
        await strike(sky)
        assert sky.gate().waiting == 42
        gate.set()
        answers = await calls
        assert statuses(answers) == {200: 50, 429: 450}
        assert (sky.up.most, len(sky.texts)) == (8, 50)
        for answer in answers:
            if answer.status == 429:
                check_error(answer, 429, "rate_limited", "waiting already")


@struck
@asynchronous
async def test_a_backend_that_throttles_every_third_call(tmp_path: Path, strike: Strike) -> None:
    async with storm(tmp_path, retry={"attempts": 30, "backoff": 0.002}) as sky:
        sky.up.answer = every_third(refusal(429))
        calls = sky.blow(60)
        await sky.up.asked(30)
        await strike(sky)
        assert statuses(await calls) == {200: 60}
        assert len(sky.texts) == 60 + 29  # of 89 every third is throttled, and made again
        assert (await scrape(sky.server))("retries_total", model="m") == 29


@struck
@asynchronous
async def test_a_throttle_that_says_when_is_obeyed_by_all(tmp_path: Path, strike: Strike) -> None:
    async with storm(tmp_path, retry={"attempts": 30, "backoff": 0.001}) as sky:
        sky.up.answer = every_third(refusal(429, headers={"Retry-After": "0.3"}))
        began = asyncio.get_running_loop().time()
        calls = sky.blow(20)
        await sky.up.asked(20)
        await strike(sky)
        await sky.up.asked(21)
        assert asyncio.get_running_loop().time() - began >= 0.3
        assert statuses(await calls) == {200: 20}


@struck
@asynchronous
async def test_a_backend_that_hangs_before_the_first_token(tmp_path: Path, strike: Strike) -> None:
    async with storm(
        tmp_path, timeouts={"first_token": 0.3}, breaker=NO_BREAKER, concurrency={"calls": 20, "queue": 20}
    ) as sky:
        sky.up.answer = hang()
        calls = sky.blow(40)
        await sky.up.asked(20)
        await strike(sky)
        answers = await calls
        assert statuses(answers) == {503: 40}
        check_error(answers[0], 503, "unavailable", "did not begin to answer")
        assert len(sky.texts) == len(set(sky.texts)) == 40  # it may be working on it still: nobody asks again
        await sky.up.idle()
        assert sky.up.cancelled == 40


@pytest.mark.parametrize("end", ["hangs", "breaks off"])
@struck
@asynchronous
async def test_a_backend_that_ends_after_the_third_token(tmp_path: Path, strike: Strike, end: str) -> None:
    async with storm(tmp_path, timeouts={"between_tokens": 0.8}, breaker=NO_BREAKER) as sky:
        sky.up.answer = stream_of(["a", "b", "c", asyncio.Event() if end == "hangs" else CUT])
        calls = sky.blow(40, "/api/stream/m")
        await sky.up.asked(20)
        await strike(sky)
        for answer in await calls:
            assert [event["delta"] for event in answer.events if event["type"] == "chunk"] == ["a", "b", "c"]
            assert check_stream(answer.events)["m"]["code"] == ("unavailable" if end == "hangs" else "model_error")
        assert len(sky.texts) == len(set(sky.texts)) == 40
        assert (await scrape(sky.server))("retries_total") == 0


@pytest.mark.slow
@struck
@asynchronous
async def test_a_backend_that_hangs_between_any_two_tokens(tmp_path: Path, strike: Strike) -> None:
    tokens = list("abcdef")
    async with storm(
        tmp_path, timeouts={"first_token": 3.0, "between_tokens": 3.0}, breaker=NO_BREAKER, retry=ONCE
    ) as sky:
        sky.up.answer = in_turn(*(stream_of([*tokens[:n], asyncio.Event(), *tokens[n:]]) for n in range(7)))
        calls = sky.blow(70, "/api/stream/m")
        await sky.up.asked(35)
        await strike(sky)
        answers = await calls
        told: Counter[str] = Counter()
        for answer in answers:
            if answer.status == 503:
                told[""] += 1
            else:
                assert check_stream(answer.events)["m"]["code"] == "unavailable"
                told["".join(event.get("delta", "") for event in answer.events)] += 1
        assert told == {"abcdef"[:n]: 10 for n in range(7)}


@struck
@asynchronous
async def test_a_backend_that_is_down_for_a_while_and_comes_back(tmp_path: Path, strike: Strike) -> None:
    retry = {"attempts": 2, "backoff": 0.001}
    async with storm(tmp_path, breaker={"failures": 3, "seconds": 0.5}, retry=retry) as sky:
        assert statuses(await sky.blow(10)) == {200: 10}
        await sky.up.close()
        answers = [(await sky.blow(1))[0] for _ in range(3)]
        assert ["Cannot reach" in answer.json["error"] for answer in answers] == [True] * 3
        await strike(sky)
        for answer in await sky.blow(50):
            check_error(answer, 503, "unavailable", "m failed 3 times in a row")
        assert (await scrape(sky.server))("retries_total", model="m") == 3  # and the 50 cost nothing
        await comes_back(sky)


async def comes_back(sky: Storm) -> None:
    """The upstream opens again: one call at a time finds that out, and then all are answered."""
    gate = asyncio.Event()
    sky.up.answer = stream_of([gate, "Hello"])
    await sky.up.open()
    asked = len(sky.texts)
    while (await scrape(sky.server)).by("breaker_state", "state") != {"half_open": 1}:
        pass
    calls = sky.blow(20)
    await sky.up.asked(asked + 1)
    await comes_true(lambda: sky.server.services.streams.running == 1)
    assert len(sky.texts) == asked + 1
    gate.set()
    assert statuses(await calls) == {200: 1, 503: 19}
    assert statuses(await sky.blow(20)) == {200: 20}


@struck
@asynchronous
async def test_a_backend_that_dies_under_its_calls(tmp_path: Path, strike: Strike) -> None:
    async with storm(tmp_path, breaker=NO_BREAKER, retry={"attempts": 200, "backoff": 0.02}) as sky:
        sky.up.answer = in_turn(hang(), stream_of(["a", asyncio.Event()]))
        calls = sky.blow(40, "/api/stream/m")
        await sky.up.asked(40)
        sky.up.answer = stream_of(["Hello"])
        await sky.up.close()
        await strike(sky)
        await sky.up.open()
        told = Counter(check_stream(answer.events)["m"]["type"] for answer in await calls)
        assert told == {"error": 20, "result": 20}  # those that had a token are told; the others are made again
        assert set(Counter(sky.texts).values()) == {1, 2}
        assert len(sky.texts) == 60


@struck
@asynchronous
async def test_a_fallback_that_fails_too(tmp_path: Path, strike: Strike) -> None:
    others = {
        "x": {"timeouts": {"first_token": 0.2}, "breaker": NO_BREAKER, "concurrency": {"calls": 15}},
        "y": {"retry": {"attempts": 30, "backoff": 0.001}},
    }
    async with storm(tmp_path, others=others, fallback=["x", "nobody", "y"], retry=ONCE, breaker=NO_BREAKER) as sky:
        sky.up.answers = {"m": refusal(500), "x": hang(), "y": every_third(refusal(429))}
        calls = sky.blow(30)
        await sky.up.asked(40)
        await strike(sky)
        answers = await calls
        assert statuses(answers) == {200: 30}
        assert {(a.json["metadata"]["model"], a.json["metadata"]["fallback_from"]) for a in answers} == {("y", "m")}
        asked = Counter(request.body["model"] for request in sky.up.requests)
        assert asked == {"m": 30, "x": 30, "y": 30 + 14}
        assert (await scrape(sky.server)).by("fallbacks_total", "model") == {"m": 90}


@struck
@asynchronous
async def test_where_all_fallbacks_fail_each_client_hears_of_its_model(tmp_path: Path, strike: Strike) -> None:
    async with storm(tmp_path, others={"x": None}, fallback=["x"], concurrency={"calls": 4}) as sky:
        sky.up.answers = {"m": refusal(400, "too long"), "x": refusal(500, "x is ill")}
        assert statuses(await sky.blow(10)) == {400: 10}  # whoever would answer: nobody else is asked
        sky.up.answers["m"] = refusal(401)
        calls = sky.blow(30)
        await sky.up.asked(15)
        await strike(sky)
        for answer in await calls:
            assert answer.status == 503
            assert "x is ill" not in answer.json["error"]


@asynchronous
async def test_a_key_with_few_calls_does_not_starve_beside_one_with_many(tmp_path: Path) -> None:
    async with storm(tmp_path, keys="greedy,modest", concurrency={"calls": 4, "queue": 300}) as sky:
        gate = asyncio.Event()
        sky.up.answer = stream_of([gate, "Hello"])
        many = sky.blow(200, **{"X-API-Key": "greedy"})
        await comes_true(lambda: sky.server.services.streams.running == 200)
        few = sky.blow(10, **{"X-API-Key": "modest"})
        await comes_true(lambda: sky.gate().waiting == 206)
        gate.set()
        assert (statuses(await many), statuses(await few)) == ({200: 200}, {200: 10})
        keys = [text.split()[0] for text in sky.texts]
        assert keys[:4] == ["greedy"] * 4
        assert Counter(keys[4:26])["modest"] == 10  # by turns


@asynchronous
async def test_each_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    limits = {"queue": 0, "per_key": {"per_second": 3}}
    async with storm(tmp_path, keys="one,two", concurrency=limits) as sky:
        for key in ("one", "two"):
            answers = await sky.blow(10, **{"X-API-Key": key})
            assert statuses(answers) == {200: 3, 429: 7}
            assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}


@asynchronous
async def test_clients_that_leave_in_a_storm_give_their_places_to_those_who_stay(tmp_path: Path) -> None:
    async with storm(tmp_path, concurrency={"calls": 8, "queue": 500}) as sky:
        gate = asyncio.Event()
        sky.up.answer = stream_of(["a", gate, "b"])
        leaving, staying = sky.blow(100, "/api/stream/m"), sky.blow(100)
        await comes_true(lambda: sky.server.services.streams.running == 200)
        leaving.cancel()
        await until(lambda: sky.server.services.streams.running == 100)
        gate.set()
        assert statuses(await staying) == {200: 100}
        assert sky.up.most <= 16  # those that were given up may not have noticed yet


@asynchronous
async def test_numbers_that_change_count_at_once_for_the_queue_and_for_the_breaker(tmp_path: Path) -> None:
    async with storm(tmp_path, concurrency={"calls": 2, "queue": 50}, breaker={"failures": 3}, retry=ONCE) as sky:
        gate = asyncio.Event()
        sky.up.answer = stream_of([gate, "Hello"])
        calls = sky.blow(20)
        await comes_true(lambda: sky.gate().waiting == 18)
        await sky.reload(concurrency={"calls": 10, "queue": 50})
        one_more = sky.blow(1)
        await comes_true(lambda: sky.up.answering == 10)
        assert sky.gate().waiting == 11
        gate.set()
        assert statuses([*await calls, *await one_more]) == {200: 21}
        sky.up.answer = refusal(500)
        assert statuses(await sky.blow(1) + await sky.blow(1)) == {500: 2}
        await sky.reload(breaker={"failures": 2, "seconds": 30})
        assert statuses(await sky.blow(1) + await sky.blow(1)) == {500: 1, 503: 1}
