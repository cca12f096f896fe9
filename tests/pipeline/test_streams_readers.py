"""Streams and their readers: who may read, what happens when they leave, and what is kept for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline import streams as streams_module
from pipeline.errors import RateLimited, UnknownStream
from pipeline.streams import Complete
from tests.aio import asynchronous
from tests.pipeline.placed import ended, failures, place, read, results


@pytest.mark.parametrize("after", [-1, 0, 3, 4999, 5002])
@asynchronous
async def test_a_reader_goes_on_after_any_seq(tmp_path: Path, after: int) -> None:
    async with place(tmp_path) as here:
        stream = here.open("long")
        whole = await read(stream)
        assert len(whole) == 5003
        assert await read(stream, after) == whole[after + 1 :]


@asynchronous
async def test_when_the_last_reader_leaves_the_call_is_cancelled(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("half")
        with stream.attach() as cursor, stream.attach():
            await cursor.read()
            cursor.close()
            await here.called(1)
            assert stream.stopped is None
        await ended(stream)
        assert failures(await read(stream)) == {"half": "cancelled"}
        assert (here.scripted.replies, here.scripted.cancelled) == (0, 1)


@asynchronous
async def test_a_resumable_stream_goes_on_for_its_grace(tmp_path: Path) -> None:
    async with place(tmp_path, grace=0.01) as here:
        stream = here.open("half", resumable=True)
        with stream.attach() as cursor:
            await cursor.read()
        assert stream.stopped is None
        await ended(stream)
        assert failures(await read(stream)) == {"half": "cancelled"}


@asynchronous
async def test_a_reader_that_comes_back_in_time_ends_the_grace(tmp_path: Path) -> None:
    async with place(tmp_path, grace=0.01) as here:
        stream = here.open("half", resumable=True)
        stream.attach().close()
        with stream.attach():
            passed = asyncio.Event()
            asyncio.get_running_loop().call_later(0.03, passed.set)
            await passed.wait()
            assert stream.stopped is None
        await ended(stream)


@asynchronous
async def test_a_resumable_stream_without_readers_comes_to_its_own_end(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("long", resumable=True)
        stream.attach().close()
        await ended(stream)
        assert list(results(await read(stream))) == ["long"]


@asynchronous
async def test_a_stream_answers_to_its_owner_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("echo", owner="alice")
        assert here.streams.get(stream.id, "alice") is stream
        for stranger in ("bob", "", "alic"):
            with pytest.raises(UnknownStream):
                here.streams.get(stream.id, stranger)
        with pytest.raises(UnknownStream):
            here.streams.get("other", "alice")
        assert len(stream.id) >= 22  # 128 bits in base64


@asynchronous
async def test_an_ended_stream_is_kept_for_a_while(tmp_path: Path) -> None:
    async with place(tmp_path, keep=0.0) as short, place(tmp_path) as long:
        for here, is_kept in ((short, False), (long, True)):
            stream = here.open("echo")
            await ended(stream)
            await asyncio.sleep(0)
            try:
                assert here.streams.get(stream.id, "") is stream
                assert is_kept
            except UnknownStream:
                assert not is_kept


@asynchronous
async def test_one_that_is_not_kept_is_forgotten_at_its_end_but_read_by_who_is_there(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stream = here.open("echo", kept=False)
        assert here.streams.get(stream.id, "") is stream
        assert (await read(stream))[-1] == Complete()
        with pytest.raises(UnknownStream):
            here.streams.get(stream.id, "")


@asynchronous
async def test_finished_streams_make_place_for_new_ones_and_running_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path) as here:
        stream = here.open("long")
        await read(stream)
        monkeypatch.setattr(streams_module, "MAX_HELD", 4000)
        here.open("hang")
        with pytest.raises(UnknownStream):
            here.streams.get(stream.id, "")
        here.open("hang")
        with pytest.raises(RateLimited, match="memory"):
            here.open("hang")


@asynchronous
async def test_a_reader_that_does_not_read_is_cut_and_counts_as_having_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.eventlog.PATIENCE", 0.01)
    monkeypatch.setattr("pipeline.eventlog.MAX_LAG", 1000)
    async with place(tmp_path) as here:
        stream = here.open("long")
        with stream.attach() as cursor:
            await cursor.read()
            await ended(stream)
            with pytest.raises(Exception, match="too far behind"):
                await cursor.read()
        records = await read(stream)
        assert failures(records) == {"long": "cancelled"}
        assert records[-1] == Complete()
        assert (here.scripted.replies, here.scripted.cancelled) == (0, 1)
