"""The event log in memory: batches, positions, late readers, and writers that wait for slow ones."""

from __future__ import annotations

import asyncio

import pytest

from pipeline import eventlog
from pipeline.errors import Cancelled, SlowReader
from pipeline.eventlog import MAX_BATCH, MAX_LAG, Cursor, EventLog
from tests.aio import asynchronous


def filled(*records: str) -> EventLog[str]:
    log: EventLog[str] = EventLog()
    for record in records:
        log.extend([record], len(record))
    return log


async def waiting(cursor: Cursor[str]) -> asyncio.Task[list[str]]:
    """A task that reads, and already waits."""

    async def read() -> list[str]:
        return list(await cursor.read())

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    return task


@asynchronous
async def test_a_read_hands_out_all_that_is_there_at_once() -> None:
    with filled("a", "b", "c").attach() as cursor:
        assert list(await cursor.read()) == ["a", "b", "c"]
        assert cursor.position == 3


@asynchronous
async def test_a_cursor_begins_at_its_position() -> None:
    with filled("a", "b", "c").attach(2) as cursor:
        assert list(await cursor.read()) == ["c"]


@asynchronous
async def test_a_long_past_comes_in_several_batches() -> None:
    log = filled(*["x"] * (MAX_BATCH + 1))
    with log.attach() as cursor:
        assert [len(await cursor.read()), len(await cursor.read())] == [MAX_BATCH, 1]


@asynchronous
async def test_a_waiting_read_gets_what_is_appended_before_it_wakes_in_one_batch() -> None:
    log = filled()
    with log.attach() as cursor:
        task = await waiting(cursor)
        log.extend(["a"])
        log.extend(["b"])
        assert await task == ["a", "b"]


@asynchronous
async def test_every_reader_gets_every_record() -> None:
    log = filled("a")
    with log.attach() as first, log.attach() as second:
        reads = [await waiting(cursor) for cursor in (first, second)]
        assert await asyncio.gather(*reads) == [["a"], ["a"]]
        assert log.readers == 2
    assert log.readers == 0


@asynchronous
async def test_the_end_wakes_those_who_wait_with_nothing() -> None:
    log = filled()
    with log.attach() as cursor:
        task = await waiting(cursor)
        assert not cursor.ended
        log.end()
        assert await task == []
        assert cursor.ended


@asynchronous
async def test_an_ended_log_is_still_read_to_its_end() -> None:
    log = filled("a", "b")
    log.end()
    with log.attach(1) as cursor:
        assert not cursor.ended
        assert list(await cursor.read()) == ["b"]
        assert cursor.ended
        assert list(await cursor.read()) == []


@asynchronous
async def test_a_position_beyond_an_ended_log_reads_nothing_and_does_not_wait() -> None:
    log = filled("a")
    log.end()
    with log.attach(17) as cursor:
        assert list(await cursor.read()) == []
        assert cursor.ended


@asynchronous
async def test_a_nudge_makes_a_read_return_empty_handed_and_the_next_goes_on() -> None:
    log = filled()
    with log.attach() as cursor:
        task = await waiting(cursor)
        cursor.nudge()
        assert await task == []
        log.extend(["a"])
        assert list(await cursor.read()) == ["a"]


@asynchronous
async def test_a_nudge_outside_of_a_read_is_nothing() -> None:
    with filled("a").attach() as cursor:
        cursor.nudge()
        assert list(await cursor.read()) == ["a"]


@asynchronous
async def test_a_cut_ends_a_read_that_waits_and_every_later_one() -> None:
    log = filled()
    cursor, cuts = log.attach(), []
    cursor.on_cut = lambda: cuts.append("cut")
    task = await waiting(cursor)
    cursor.cut(Cancelled("enough"))
    with pytest.raises(Cancelled, match="enough"):
        await task
    with pytest.raises(Cancelled):
        await cursor.read()
    assert cuts == ["cut"]
    assert log.readers == 0


@asynchronous
async def test_a_cancelled_read_leaves_nothing_behind_and_loses_no_record() -> None:
    log = filled()
    with log.attach() as cursor:
        task = await waiting(cursor)
        task.cancel()
        await asyncio.wait([task])
        assert log._readers_waiting == []
        log.extend(["a"])
        assert list(await cursor.read()) == ["a"]


@asynchronous
async def test_on_idle_is_called_when_the_last_cursor_has_left_and_once_only() -> None:
    log, idle = filled("a"), []
    log.on_idle = lambda: idle.append(log.readers)
    with log.attach() as first:
        with log.attach():
            pass
        assert idle == []
        first.close()
    assert idle == [0]


@asynchronous
async def test_without_readers_nothing_is_ever_crowded() -> None:
    log = filled("x" * 3 * MAX_LAG)
    assert not log.crowded
    await log.pace()


@asynchronous
async def test_the_writer_waits_for_a_cursor_that_is_too_far_behind_until_it_has_read() -> None:
    log = filled()
    with log.attach() as cursor:
        log.extend(["x"], MAX_LAG)
        assert not log.crowded
        log.extend(["y"], 1)
        assert log.crowded
        pacing = asyncio.create_task(log.pace())
        await asyncio.sleep(0)
        assert not pacing.done()
        assert list(await cursor.read()) == ["x", "y"]
        await pacing
        assert not log.crowded


@asynchronous
async def test_a_cursor_that_does_not_read_is_cut_off_and_the_writer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "PATIENCE", 0.01)
    log = filled()
    with log.attach() as slow, log.attach() as quick:
        log.extend(["x"], MAX_LAG + 1)
        assert list(await quick.read()) == ["x"]
        await log.pace()
        with pytest.raises(SlowReader):
            await slow.read()
        assert (log.crowded, log.readers) == (False, 1)
        log.extend(["y"])
        assert list(await quick.read()) == ["y"]


@asynchronous
async def test_a_slow_cursor_that_leaves_lets_the_writer_go_on() -> None:
    log = filled()
    with log.attach():
        log.extend(["x"], MAX_LAG + 1)
        pacing = asyncio.create_task(log.pace())
        await asyncio.sleep(0)
    await pacing


@asynchronous
async def test_a_late_reader_that_is_still_catching_up_makes_nobody_wait() -> None:
    log = filled(*["x" * 1000] * (MAX_BATCH + 10))
    with log.attach() as late:
        log.extend(["y"], MAX_LAG + 1)
        assert not log.crowded
        await late.read()
        assert not log.crowded
        assert list(await late.read())[-1] == "y"
        log.extend(["z"], MAX_LAG + 1)
        assert log.crowded


@asynchronous
async def test_a_reader_that_goes_on_reading_is_never_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "PATIENCE", 5.0)
    log, got = filled(), 0

    async def write() -> None:
        for _ in range(50):
            log.extend(["x"], MAX_LAG // 2)
            if log.crowded:
                await log.pace()
        log.end()

    with log.attach() as cursor:
        writing = asyncio.create_task(write())
        while not cursor.ended:
            got += len(await cursor.read())
        await writing
    assert got == 50


@asynchronous
async def test_several_writers_that_wait_all_go_on() -> None:
    log = filled()
    with log.attach() as cursor:
        log.extend(["x"], MAX_LAG + 1)
        pacing = [asyncio.create_task(log.pace()) for _ in range(3)]
        await asyncio.sleep(0)
        await cursor.read()
        await asyncio.gather(*pacing)
    assert log._writers_waiting == []
