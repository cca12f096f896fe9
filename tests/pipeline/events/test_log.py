"""The event log in memory: batches, positions, late cursors, and writers that wait for lagging ones."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.errors import Cancelled, SlowReader
from pipeline.events import log as event_log
from pipeline.events.cursor import Cursor
from pipeline.events.log import MAX_BATCH, MAX_LAG, EventLog
from tests.async_tests import async_test


def make_log(*records: str) -> EventLog[str]:
    log: EventLog[str] = EventLog()
    for record in records:
        log.extend([record], len(record))
    return log


async def start_read(cursor: Cursor[str]) -> asyncio.Task[list[str]]:
    """Start a task whose `read` is already waiting."""

    async def read() -> list[str]:
        return list(await cursor.read())

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    return task


@async_test
async def test_read_returns_all_available_records() -> None:
    with make_log("a", "b", "c").attach() as cursor:
        assert list(await cursor.read()) == ["a", "b", "c"]
        assert cursor.position == 3


@async_test
async def test_cursor_starts_at_its_position() -> None:
    with make_log("a", "b", "c").attach(2) as cursor:
        assert list(await cursor.read()) == ["c"]


@async_test
async def test_read_of_long_log_returns_several_batches() -> None:
    log = make_log(*["x"] * (MAX_BATCH + 1))
    with log.attach() as cursor:
        assert [len(await cursor.read()), len(await cursor.read())] == [MAX_BATCH, 1]


@async_test
async def test_read_of_long_log_lets_other_tasks_run_between_batches() -> None:
    log, turns = make_log(*["x"] * (MAX_BATCH + 1)), list[str]()
    with log.attach() as cursor:
        await cursor.read()
        asyncio.get_running_loop().call_soon(turns.append, "other task")
        await cursor.read()
    assert turns == ["other task"]


@async_test
async def test_waiting_read_returns_records_appended_before_wakeup_in_one_batch() -> None:
    log = make_log()
    with log.attach() as cursor:
        task = await start_read(cursor)
        log.extend(["a"])
        log.extend(["b"])
        assert await task == ["a", "b"]


@async_test
async def test_every_cursor_reads_every_record() -> None:
    log = make_log("a")
    with log.attach() as first, log.attach() as second:
        reads = [await start_read(cursor) for cursor in (first, second)]
        assert await asyncio.gather(*reads) == [["a"], ["a"]]
        assert log.readers == 2
    assert log.readers == 0


@async_test
async def test_finish_wakes_waiting_read_with_empty_batch() -> None:
    log = make_log()
    with log.attach() as cursor:
        task = await start_read(cursor)
        assert not cursor.ended
        log.finish()
        assert await task == []
        assert cursor.ended


@async_test
async def test_finished_log_is_read_to_its_end() -> None:
    log = make_log("a", "b")
    log.finish()
    with log.attach(1) as cursor:
        assert not cursor.ended
        assert list(await cursor.read()) == ["b"]
        assert cursor.ended
        assert list(await cursor.read()) == []


@async_test
async def test_read_beyond_finished_log_returns_empty_without_waiting() -> None:
    log = make_log("a")
    log.finish()
    with log.attach(17) as cursor:
        assert list(await cursor.read()) == []
        assert cursor.ended


@async_test
async def test_wake_makes_waiting_read_return_empty_and_next_read_continues() -> None:
    log = make_log()
    with log.attach() as cursor:
        task = await start_read(cursor)
        cursor.wake()
        assert await task == []
        log.extend(["a"])
        assert list(await cursor.read()) == ["a"]


@async_test
async def test_wake_without_waiting_read_has_no_effect() -> None:
    with make_log("a").attach() as cursor:
        cursor.wake()
        assert list(await cursor.read()) == ["a"]


@async_test
async def test_abort_raises_in_waiting_read_and_in_later_reads() -> None:
    log = make_log()
    cursor, aborts = log.attach(), []
    cursor.on_abort = lambda: aborts.append("abort")
    task = await start_read(cursor)
    cursor.abort(Cancelled("enough"))
    with pytest.raises(Cancelled, match="enough"):
        await task
    with pytest.raises(Cancelled):
        await cursor.read()
    assert aborts == ["abort"]
    assert log.readers == 0


@async_test
async def test_cancelled_read_loses_no_record_and_leaves_no_waiter() -> None:
    log = make_log()
    with log.attach() as cursor:
        task = await start_read(cursor)
        task.cancel()
        await asyncio.wait([task])
        assert log._waiting_readers == set()
        log.extend(["a"])
        assert list(await cursor.read()) == ["a"]


@async_test
async def test_on_last_detach_is_called_once_after_last_cursor_closes() -> None:
    log, readers_left = make_log("a"), []
    log.on_last_detach = lambda: readers_left.append(log.readers)
    with log.attach() as first:
        with log.attach():
            pass
        assert readers_left == []
        first.close()
    assert readers_left == [0]


@async_test
async def test_log_without_cursors_never_has_lagging_cursor() -> None:
    log = make_log("x" * 3 * MAX_LAG)
    assert not log.has_lagging_cursor
    await log.wait_for_lagging_cursors()


@async_test
async def test_writer_waits_for_lagging_cursor_until_it_has_read() -> None:
    log = make_log()
    with log.attach() as cursor:
        log.extend(["x"], MAX_LAG)
        assert not log.has_lagging_cursor
        log.extend(["y"], 1)
        assert log.has_lagging_cursor
        waiting = asyncio.create_task(log.wait_for_lagging_cursors())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert list(await cursor.read()) == ["x", "y"]
        await waiting
        assert not log.has_lagging_cursor


@async_test
async def test_lagging_cursor_is_aborted_after_timeout_and_writer_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LAG_TIMEOUT", 0.01)
    log = make_log()
    with log.attach() as slow, log.attach() as quick:
        log.extend(["x"], MAX_LAG + 1)
        assert list(await quick.read()) == ["x"]
        await log.wait_for_lagging_cursors()
        with pytest.raises(SlowReader):
            await slow.read()
        assert (log.has_lagging_cursor, log.readers) == (False, 1)
        log.extend(["y"])
        assert list(await quick.read()) == ["y"]


@async_test
async def test_closing_lagging_cursor_wakes_writer() -> None:
    log = make_log()
    with log.attach():
        log.extend(["x"], MAX_LAG + 1)
        waiting = asyncio.create_task(log.wait_for_lagging_cursors())
        await asyncio.sleep(0)
    await waiting


@async_test
async def test_late_cursor_that_is_catching_up_does_not_lag() -> None:
    log = make_log(*["x" * 1000] * (MAX_BATCH + 10))
    with log.attach() as late:
        log.extend(["y"], MAX_LAG + 1)
        assert not log.has_lagging_cursor
        await late.read()
        assert not log.has_lagging_cursor
        assert list(await late.read())[-1] == "y"
        log.extend(["z"], MAX_LAG + 1)
        assert log.has_lagging_cursor


@async_test
async def test_cursor_that_keeps_reading_is_never_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LAG_TIMEOUT", 5.0)
    log, count = make_log(), 0

    async def write() -> None:
        for _ in range(50):
            log.extend(["x"], MAX_LAG // 2)
            if log.has_lagging_cursor:
                await log.wait_for_lagging_cursors()
        log.finish()

    with log.attach() as cursor:
        writing = asyncio.create_task(write())
        while not cursor.ended:
            count += len(await cursor.read())
        await writing
    assert count == 50


@async_test
async def test_read_of_lagging_cursor_wakes_all_waiting_writers() -> None:
    log = make_log()
    with log.attach() as cursor:
        log.extend(["x"], MAX_LAG + 1)
        waiting = [asyncio.create_task(log.wait_for_lagging_cursors()) for _ in range(3)]
        await asyncio.sleep(0)
        await cursor.read()
        await asyncio.gather(*waiting)
    assert log._waiting_writers == set()
