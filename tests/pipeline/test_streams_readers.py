"""Readers of streams: resuming, detaching, owners, retention and lag."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline import streams as streams_module
from pipeline.errors import RateLimited, UnknownStream
from pipeline.streams import StreamComplete
from tests.async_tests import async_test
from tests.pipeline.preset_streams import failure_codes, read_records, result_texts, streams_harness, wait_until_ended


@pytest.mark.parametrize("after", [-1, 0, 3, 4999, 5002])
@async_test
async def test_reader_resumes_after_any_seq(tmp_path: Path, after: int) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("long")
        whole = await read_records(stream)
        assert len(whole) == 5003
        assert await read_records(stream, after) == whole[after + 1 :]


@async_test
async def test_last_reader_detached_cancels_upstream_call(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("half")
        with stream.attach() as cursor, stream.attach():
            await cursor.read()
            cursor.close()
            await harness.wait_for_calls(1)
            assert stream.stop_reason is None
        await wait_until_ended(stream)
        assert failure_codes(await read_records(stream)) == {"half": "cancelled"}
        assert (harness.scripted.open_responses, harness.scripted.cancelled) == (0, 1)


@async_test
async def test_resumable_stream_without_reader_is_cancelled_after_grace(tmp_path: Path) -> None:
    async with streams_harness(tmp_path, grace=0.01) as harness:
        stream = harness.open("half", resumable=True)
        with stream.attach() as cursor:
            await cursor.read()
        assert stream.stop_reason is None
        await wait_until_ended(stream)
        assert failure_codes(await read_records(stream)) == {"half": "cancelled"}


@async_test
async def test_reader_attached_within_grace_keeps_stream_running(tmp_path: Path) -> None:
    async with streams_harness(tmp_path, grace=0.01) as harness:
        stream = harness.open("half", resumable=True)
        stream.attach().close()
        with stream.attach():
            passed = asyncio.Event()
            asyncio.get_running_loop().call_later(0.03, passed.set)
            await passed.wait()
            assert stream.stop_reason is None
        await wait_until_ended(stream)


@async_test
async def test_resumable_stream_without_reader_finishes_within_grace(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("long", resumable=True)
        stream.attach().close()
        await wait_until_ended(stream)
        assert list(result_texts(await read_records(stream))) == ["long"]


@async_test
async def test_get_stream_of_another_owner_is_unknown(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("echo", owner="alice")
        assert harness.streams.get(stream.id, "alice") is stream
        for stranger in ("bob", "", "alic"):
            with pytest.raises(UnknownStream):
                harness.streams.get(stream.id, stranger)
        with pytest.raises(UnknownStream):
            harness.streams.get("other", "alice")
        assert len(stream.id) >= 22  # 128 bits in base64


@async_test
async def test_ended_stream_is_readable_until_retention_passes(tmp_path: Path) -> None:
    async with streams_harness(tmp_path, retention=0.0) as short, streams_harness(tmp_path) as long:
        for harness, is_retained in ((short, False), (long, True)):
            stream = harness.open("echo")
            await wait_until_ended(stream)
            await asyncio.sleep(0)
            try:
                assert harness.streams.get(stream.id, "") is stream
                assert is_retained
            except UnknownStream:
                assert not is_retained


@async_test
async def test_unretained_stream_is_evicted_at_end_but_attached_reader_finishes(tmp_path: Path) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("echo", retain=False)
        assert harness.streams.get(stream.id, "") is stream
        assert (await read_records(stream))[-1] == StreamComplete()
        with pytest.raises(UnknownStream):
            harness.streams.get(stream.id, "")


@async_test
async def test_log_memory_limit_evicts_ended_streams_then_rate_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("long")
        await read_records(stream)
        monkeypatch.setattr(streams_module, "MAX_LOG_BYTES", 4000)
        harness.open("hang")
        with pytest.raises(UnknownStream):
            harness.streams.get(stream.id, "")
        harness.open("hang")
        with pytest.raises(RateLimited, match="memory"):
            harness.open("hang")


@async_test
async def test_lagging_reader_is_aborted_and_cancels_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.events.log.LAG_TIMEOUT", 0.01)
    monkeypatch.setattr("pipeline.events.log.MAX_LAG", 1000)
    async with streams_harness(tmp_path) as harness:
        stream = harness.open("long")
        with stream.attach() as cursor:
            await cursor.read()
            await wait_until_ended(stream)
            with pytest.raises(Exception, match="too far behind"):
                await cursor.read()
        records = await read_records(stream)
        assert failure_codes(records) == {"long": "cancelled"}
        assert records[-1] == StreamComplete()
        assert (harness.scripted.open_responses, harness.scripted.cancelled) == (0, 1)
