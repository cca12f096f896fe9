"""Streams: one log for all models of a request, what it tells, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.errors import Cancelled, InvalidRequest, RateLimited, Unavailable, UnknownModel
from pipeline.frames import EncodedFrame
from pipeline.messages import Failure, InferenceRequest, Message
from pipeline.streams import Complete, Delta, Record, Start
from tests.aio import asynchronous
from tests.pipeline.placed import ended, failures, place, read, results


@asynchronous
async def test_a_stream_is_start_chunks_result_complete(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("echo")
        start, *chunks, result, complete = await read(stream)
        assert isinstance(start, Start)
        assert (start.stream_id, start.models) == (stream.id, ("echo",))
        assert start.request["text"] == "Hi there"
        assert chunks == ["Hi ", "there"]
        assert results([result]) == {"echo": "Hi there"}
        assert complete == Complete()


@asynchronous
async def test_several_models_share_one_log_and_each_has_its_own_text(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        start, *events, complete = await read(here.open("echo", "long", "cut", "busy"))
        assert isinstance(start, Start)
        assert complete == Complete()
        joined = {"echo": "", "long": "", "cut": ""}
        for event in events:
            if isinstance(event, Delta):
                joined[event.model] += event.text
        assert joined.pop("cut") == "a b"
        assert results(events) == joined
        assert failures(events) == {"cut": "model_error", "busy": "rate_limited"}


@asynchronous
async def test_one_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("hang", "echo")
        told: list[Record] = []
        with stream.attach() as cursor:
            while not results(told):
                told += await cursor.read()
        await ended(stream)
        assert failures(await read(stream)) == {"hang": "cancelled"}


@pytest.mark.parametrize(("model", "codes"), [("busy", {"busy": "rate_limited"}), ("cut", {"cut": "model_error"})])
@asynchronous
async def test_a_failure_is_told_in_place_of_the_result(tmp_path: Path, model: str, codes: dict[str, str]) -> None:
    async with place(tmp_path) as here:
        records = await read(here.open(model))
        assert (failures(records), results(records)) == (codes, {})
        assert records[-1] == Complete()


@pytest.mark.parametrize("models", [("hang",), ("half", "hang")])
@asynchronous
async def test_stop_ends_it_for_all_readers_and_tells_why(tmp_path: Path, models: tuple[str, ...]) -> None:
    async with place(tmp_path) as here:
        stream = here.open(*models)
        reading = [asyncio.create_task(read(stream)) for _ in range(2)]
        await here.called(len(models))
        stream.stop(Cancelled("enough"))
        stream.stop(Unavailable("too late to say this"))
        first, second = await asyncio.gather(*reading)
        assert first == second
        assert failures(first) == dict.fromkeys(models, "cancelled")
        assert first[-1] == Complete()
        assert (here.scripted.replies, here.scripted.cancelled) == (0, len(models))


@pytest.mark.parametrize("models", [("echo",), ("echo", "long")])
@asynchronous
async def test_a_stop_before_the_first_step_is_told_too(tmp_path: Path, models: tuple[str, ...]) -> None:
    async with place(tmp_path) as here:
        stream = here.open(*models)
        stream.stop(Cancelled("enough"))
        start, *errors, complete = await read(stream)
        assert isinstance(start, Start)
        assert failures(errors) == dict.fromkeys(models, "cancelled")
        assert complete == Complete()
        assert here.streams.running == 0


@asynchronous
async def test_a_stop_after_the_end_changes_nothing(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("echo")
        before = await read(stream)
        stream.stop(Cancelled("enough"))
        assert await read(stream) == before


@asynchronous
async def test_at_the_limit_of_streams_new_ones_are_refused_until_one_ends(tmp_path: Path) -> None:
    async with place(tmp_path, max_streams=2) as here:
        first, _ = here.open("hang"), here.open("hang")
        with pytest.raises(RateLimited, match="2 requests at once"):
            here.open("echo")
        first.stop(Cancelled("enough"))
        await ended(first)
        await asyncio.sleep(0)
        here.open("echo")


@asynchronous
async def test_an_unknown_name_or_a_bad_frame_is_refused_before_any_call(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        with pytest.raises(UnknownModel, match="'other'"):
            here.open("echo", "other")
        bad = InferenceRequest((Message("user", ("Hi", EncodedFrame("!", "frames[0]"))),))
        with pytest.raises(InvalidRequest, match=r"frames\[0\]"):
            here.streams.open(bad, ["echo", "long"])
        assert (here.scripted.calls, here.streams.running) == (0, 0)


@asynchronous
async def test_draining_lets_streams_end_and_stops_the_others(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        echo, hang = here.open("echo"), here.open("hang")
        await here.streams.drain(0.2)
        assert list(results(await read(echo))) == ["echo"]
        assert failures(await read(hang)) == {"hang": "unavailable"}
        assert here.streams.running == 0
        with pytest.raises(Unavailable, match="shutting down"):
            here.open("echo")


@pytest.mark.parametrize("where", ["before", "middle", "silent"])
@pytest.mark.parametrize("models", [("echo",), ("echo", "long")])
@asynchronous
async def test_a_stage_with_a_bug_is_internal_and_says_nothing_of_it(
    tmp_path: Path, where: str, models: tuple[str, ...]
) -> None:
    stages = ["route_model", {"broken": {"where": where}}, "invoke", "normalize_envelope"]
    async with place(tmp_path, stages=stages) as here:
        records = await read(here.open(*models))
        assert failures(records) == dict.fromkeys(models, "internal")
        assert "secret" not in str(records)
        assert records[-1] == Complete()
        assert here.scripted.replies == 0


@asynchronous
async def test_a_close_that_fails_after_the_result_is_no_second_outcome(tmp_path: Path) -> None:
    stages = ["route_model", {"broken": {"where": "close"}}, "invoke", "normalize_envelope"]
    async with place(tmp_path, stages=stages) as here:
        records = await read(here.open("echo"))
        assert (results(records), failures(records)) == ({"echo": "Hi there"}, {})


@asynchronous
async def test_an_edition_is_held_as_long_as_its_stream_runs(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        edition = here.runtime.acquire()
        holders = edition.holders
        streams = [here.open("echo"), here.open("hang")]
        assert edition.holders == holders + 2
        streams[1].stop(Cancelled("enough"))
        for stream in streams:
            await read(stream)
        assert edition.holders == holders


@pytest.mark.parametrize("model", ["busy", "cut"])
@asynchronous
async def test_a_kept_failure_keeps_nothing_of_its_request(tmp_path: Path, model: str) -> None:
    async with place(tmp_path) as here:
        events = await read(here.open(model))
        (error,) = [event.error for event in events if isinstance(event, Failure)]
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


@asynchronous
async def test_a_kept_stream_weighs_the_texts_that_it_keeps(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("echo", text="x" * 100_000)
        await read(stream)
        assert stream.log.size > 200_000
