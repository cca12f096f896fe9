"""Streams: the records of one or several models, stop, limits, drain and failures."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.errors import Cancelled, InvalidRequest, RateLimited, Unavailable, UnknownModel
from pipeline.media.frames import EncodedFrame
from pipeline.messages import Failure, InferenceRequest, Message
from pipeline.streams import ModelText, StreamComplete, StreamRecord, StreamStart
from tests.async_tests import async_test
from tests.pipeline.preset_streams import failure_codes, read_records, result_texts, streams_harness, wait_until_ended


@async_test
async def test_stream_records_are_start_chunks_result_complete(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("echo")
        start, *chunks, result, complete = await read_records(stream)
        assert isinstance(start, StreamStart)
        assert (start.stream_id, start.models) == (stream.id, ("echo",))
        assert start.request["text"] == "Hi there"
        assert chunks == ["Hi ", "there"]
        assert result_texts([result]) == {"echo": "Hi there"}
        assert complete == StreamComplete()


@async_test
async def test_stream_of_several_models_has_each_text_and_outcome_in_one_log(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        start, *events, complete = await read_records(harness.open("echo", "long", "cut", "busy"))
        assert isinstance(start, StreamStart)
        assert complete == StreamComplete()
        joined = {"echo": "", "long": "", "cut": ""}
        for event in events:
            if isinstance(event, ModelText):
                joined[event.model] += event.text
        assert joined.pop("cut") == "a b"
        assert result_texts(events) == joined
        assert failure_codes(events) == {"cut": "model_error", "busy": "rate_limited"}


@async_test
async def test_hanging_model_does_not_delay_other_models(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("hang", "echo")
        records: list[StreamRecord] = []
        with stream.attach() as cursor:
            while not result_texts(records):
                records += await cursor.read()
        await wait_until_ended(stream)
        assert failure_codes(await read_records(stream)) == {"hang": "cancelled"}


@pytest.mark.parametrize(("model", "codes"), [("busy", {"busy": "rate_limited"}), ("cut", {"cut": "model_error"})])
@async_test
async def test_model_failure_replaces_result(tmp_path: Path, model: str, codes: dict[str, str]) -> None:
    async with streams_harness(tmp_path) as harness:
        records = await read_records(harness.open(model))
        assert (failure_codes(records), result_texts(records)) == (codes, {})
        assert records[-1] == StreamComplete()


@pytest.mark.parametrize("models", [("hang",), ("half", "hang")])
@async_test
async def test_stop_ends_stream_for_all_readers_with_its_reason(tmp_path: Path, models: tuple[str, ...]) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open(*models)
        reading = [asyncio.create_task(read_records(stream)) for _ in range(2)]
        await harness.wait_for_calls(len(models))
        stream.stop(Cancelled("enough"))
        stream.stop(Unavailable("too late to say this"))
        first, second = await asyncio.gather(*reading)
        assert first == second
        assert failure_codes(first) == dict.fromkeys(models, "cancelled")
        assert first[-1] == StreamComplete()
        assert (harness.scripted.open_responses, harness.scripted.cancelled) == (0, len(models))


@pytest.mark.parametrize("models", [("echo",), ("echo", "long")])
@async_test
async def test_stop_before_first_task_step_reports_failure_and_completes(
    tmp_path: Path, models: tuple[str, ...]
) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open(*models)
        stream.stop(Cancelled("enough"))
        start, *errors, complete = await read_records(stream)
        assert isinstance(start, StreamStart)
        assert failure_codes(errors) == dict.fromkeys(models, "cancelled")
        assert complete == StreamComplete()
        assert harness.streams.running_count == 0


@async_test
async def test_stop_after_end_changes_nothing(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("echo")
        before = await read_records(stream)
        stream.stop(Cancelled("enough"))
        assert await read_records(stream) == before


@async_test
async def test_open_at_stream_limit_is_rate_limited_until_one_ends(tmp_path: Path) -> None:
    async with streams_harness(tmp_path, max_streams=2) as harness:
        first, _ = harness.open("hang"), harness.open("hang")
        with pytest.raises(RateLimited, match="2 requests at once"):
            harness.open("echo")
        first.stop(Cancelled("enough"))
        await wait_until_ended(first)
        await asyncio.sleep(0)
        harness.open("echo")


@async_test
async def test_open_with_unknown_model_or_invalid_frame_calls_no_model(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        with pytest.raises(UnknownModel, match="'other'"):
            harness.open("echo", "other")
        bad = InferenceRequest((Message("user", ("Hi", EncodedFrame("!", "frames[0]"))),))
        with pytest.raises(InvalidRequest, match=r"frames\[0\]"):
            harness.streams.open(bad, ["echo", "long"])
        assert (harness.scripted.calls, harness.streams.running_count) == (0, 0)


@async_test
async def test_drain_lets_streams_finish_then_stops_the_rest(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        echo, hang = harness.open("echo"), harness.open("hang")
        await harness.streams.drain(0.2)
        assert list(result_texts(await read_records(echo))) == ["echo"]
        assert failure_codes(await read_records(hang)) == {"hang": "unavailable"}
        assert harness.streams.running_count == 0
        with pytest.raises(Unavailable, match="shutting down"):
            harness.open("echo")


@pytest.mark.parametrize("where", ["before", "middle", "silent"])
@pytest.mark.parametrize("models", [("echo",), ("echo", "long")])
@async_test
async def test_stage_exception_is_internal_failure_without_details(
    tmp_path: Path, where: str, models: tuple[str, ...]
) -> None:
    stages = ["route_model", {"broken": {"where": where}}, "invoke", "normalize_envelope"]
    async with streams_harness(tmp_path, stages=stages) as harness:
        records = await read_records(harness.open(*models))
        assert failure_codes(records) == dict.fromkeys(models, "internal")
        assert "secret" not in str(records)
        assert records[-1] == StreamComplete()
        assert harness.scripted.open_responses == 0


@async_test
async def test_failing_cleanup_after_result_adds_no_second_outcome(tmp_path: Path) -> None:
    stages = ["route_model", {"broken": {"where": "close"}}, "invoke", "normalize_envelope"]
    async with streams_harness(tmp_path, stages=stages) as harness:
        records = await read_records(harness.open("echo"))
        assert (result_texts(records), failure_codes(records)) == ({"echo": "Hi there"}, {})


@async_test
async def test_stream_holds_pipeline_version_until_it_ends(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        version = harness.runtime.acquire()
        references = version.reference_count
        streams = [harness.open("echo"), harness.open("hang")]
        assert version.reference_count == references + 2
        streams[1].stop(Cancelled("enough"))
        for stream in streams:
            await read_records(stream)
        assert version.reference_count == references


@pytest.mark.parametrize("model", ["busy", "cut"])
@async_test
async def test_logged_failure_has_no_traceback_or_cause(tmp_path: Path, model: str) -> None:
    async with streams_harness(tmp_path) as harness:
        events = await read_records(harness.open(model))
        (error,) = [event.error for event in events if isinstance(event, Failure)]
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


@async_test
async def test_stream_log_size_includes_texts(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("echo", text="x" * 100_000)
        await read_records(stream)
        assert stream.log.size > 200_000
