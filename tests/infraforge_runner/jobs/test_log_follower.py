"""LogFollower: a log that another process writes reaches all readers byte for byte, in parts that end with lines."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from infraforge_runner.jobs import log_follower
from infraforge_runner.jobs.log_follower import MAX_CACHED_PARTS, MAX_PART_BYTES, LogFollower, LogPart
from infraforge_runner.jobs.watch import Watcher
from pipeline.errors import Cancelled
from tests.async_tests import async_test, wait_until
from tests.infraforge_runner.log_harness import NEVER, FollowedJob, followed_job, join_parts, read_part, read_to_end


@async_test
async def test_missing_log_is_followed_once_it_exists(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            reading = asyncio.create_task(read_part(cursor))
            await asyncio.sleep(0)
            await job.writer.write(b"hello\n")
            assert await reading == b"hello\n"
            job.finish()
            assert await read_to_end(cursor) == []


@async_test
async def test_finished_job_without_log_has_empty_log(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            assert not cursor.ended
            job.finish()
            assert await read_to_end(cursor) == []
        with job.log.attach() as cursor:
            assert cursor.ended


@async_test
async def test_line_is_readable_as_soon_as_it_is_written(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            for number in range(20):
                await job.writer.write(b"line %d\n" % number)
                assert await read_part(cursor) == b"line %d\n" % number


@async_test
async def test_part_ends_with_line_and_partial_line_waits(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            await job.writer.write(b"one\ntwo\nthr")
            assert await read_part(cursor) == b"one\ntwo\n"
            await job.writer.write(b"ee\nfo")
            assert await read_part(cursor) == b"three\n"


@async_test
async def test_carriage_return_ends_part_without_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", NEVER)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            for percent in range(0, 100, 10):
                await job.writer.write(b"\r%3d %%\r" % percent)
                assert await read_part(cursor) == b"\r%3d %%\r" % percent


@async_test
async def test_partial_line_is_readable_after_delay(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            loop = asyncio.get_running_loop()
            started_at = loop.time()
            await job.writer.write(b"Continue? ")
            assert await read_part(cursor) == b"Continue? "
            assert loop.time() - started_at > 0.9
            await job.writer.write(b"yes\n")
            assert await read_part(cursor) == b"yes\n"


@async_test
async def test_growing_partial_line_is_readable_after_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", 0.1)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            reading = asyncio.create_task(read_part(cursor))
            while not reading.done():
                await job.writer.write(b".")
                await asyncio.sleep(0.01)
            assert set(await reading) == set(b".")


@async_test
async def test_second_reader_gets_released_partial_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", 0.05)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as first:
            await job.writer.write(b"one\nCont")
            assert await read_part(first) == b"one\n"
            assert await read_part(first) == b"Cont"
            monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", NEVER)
            with job.log.attach(6) as second:
                assert await read_part(second) == b"nt"
            await job.writer.write(b"inue\n")
            assert await read_part(first) == b"inue\n"


@async_test
async def test_reader_resuming_inside_line_gets_rest_of_line(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        await job.writer.write(b"one\nCont")
        with job.log.attach(8) as cursor:
            reading = asyncio.create_task(read_part(cursor))
            await job.writer.write(b"inue\n")
            assert await reading == b"inue\n"


@async_test
async def test_finished_job_releases_incomplete_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", NEVER)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            await job.writer.write(b"one\nlast words \xe2\x82")
            assert await read_part(cursor) == b"one\n"
            job.finish()
            assert join_parts(await read_to_end(cursor)) == b"last words \xe2\x82"


CHARACTERS = "aé€😀ñ\N{COMBINING ACUTE ACCENT}中𝄞".encode()


@pytest.mark.parametrize("line_end", [b"", b"\n"])
@async_test
async def test_characters_written_byte_by_byte_are_never_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line_end: bytes
) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", 0.001)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            reading = asyncio.create_task(read_to_end(cursor))
            for number in CHARACTERS * 5 + line_end:
                await job.writer.write(bytes([number]))
                await asyncio.sleep(0.003)
            job.finish()
            parts = await reading
            assert join_parts(parts) == CHARACTERS * 5 + line_end
            assert len(parts) > 5
            assert "".join(part.data.decode() for part in parts).encode() == join_parts(parts)


@pytest.mark.parametrize("data", [b"\xff", b"\xc3(", b"\xe2\x28", b"\xf5", b"\x80\x80\x80", b"\xe0\x80"])
@async_test
async def test_invalid_utf8_is_not_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", 0.05)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            await job.writer.write(data)
            assert await read_part(cursor) == data


@async_test
async def test_line_longer_than_part_is_readable_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "PARTIAL_LINE_DELAY", NEVER)
    line = CHARACTERS * (200_000 // len(CHARACTERS))
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            await job.writer.write(line)
            parts: list[LogPart] = []
            while cursor.position < len(line):
                parts += await cursor.read()
            assert join_parts(parts) == line
            for part in parts:
                part.data.decode()
                assert len(part.data) <= MAX_PART_BYTES
            assert len(parts) == 4


@async_test
async def test_existing_log_is_read_in_parts_that_end_with_lines(tmp_path: Path) -> None:
    content = b"".join(b"line %d\n" % number for number in range(50_000))
    async with followed_job(tmp_path) as job:
        await job.writer.write(content)
        job.finish()
        with job.log.attach() as cursor:
            parts = await read_to_end(cursor)
        assert join_parts(parts) == content
        assert len(parts) == -(-len(content) // MAX_PART_BYTES)
        assert all(part.data.endswith(b"\n") for part in parts)


@async_test
async def test_readers_at_same_offset_share_part_and_encoding(tmp_path: Path) -> None:
    encoded_parts = []

    def encode(part: LogPart) -> bytes:
        encoded_parts.append(part)
        return part.data.upper()

    async with followed_job(tmp_path) as job:
        cursors = [job.log.attach() for _ in range(10)]
        for line in (b"one\n", b"two\n"):
            await job.writer.write(line)
            parts = [part for cursor in cursors for part in await cursor.read()]
            assert len({id(part) for part in parts}) == 1
            assert {part.encoded_as("upper", encode) for part in parts} == {line.upper()}
        assert len(encoded_parts) == 2
        for cursor in cursors:
            cursor.close()


@async_test
async def test_slow_reader_catches_up_and_then_shares_parts(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as live, job.log.attach() as slow:
            for number in range(5 * MAX_CACHED_PARTS):
                await job.writer.write(b"line %d\n" % number)
                await live.read()
            backlog = await slow.read()
            assert join_parts(backlog) == b"".join(b"line %d\n" % number for number in range(5 * MAX_CACHED_PARTS))
            await job.writer.write(b"news\n")
            assert (await live.read())[0] is (await slow.read())[0]


@async_test
async def test_stalled_reader_delays_nobody_and_cache_stays_bounded(tmp_path: Path) -> None:
    block = b"x" * 999 + b"\n"
    async with followed_job(tmp_path) as job:
        with job.log.attach() as live, job.log.attach() as slow:
            for _ in range(100):
                await job.writer.write(block * 50)
                while live.position < job.path.stat().st_size:
                    await live.read()
            assert len(job.log._parts) <= MAX_CACHED_PARTS
            job.finish()
            assert join_parts(await read_to_end(slow)) == block * 5000


@pytest.mark.parametrize("seed", range(5))
@async_test
async def test_random_bytes_reach_readers_that_detach_and_resume(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    alphabet = [b"\n", b"\r", b"\r\n", "é".encode(), "😀".encode(), b"\xff", b"\x1b[31m", b"<b>", b"word " * 2000]
    pieces = [b"".join(rng.choices(alphabet, k=rng.randrange(1, 9))) for _ in range(150)]
    content = b"".join(pieces)

    async def follow(job: FollowedJob) -> bytes:
        content_read, offset = b"", 0
        while True:
            with job.log.attach(offset) as cursor:
                for _ in range(rng.randrange(1, 10)):
                    if cursor.ended:
                        return content_read
                    content_read += join_parts(await cursor.read())
                offset = cursor.position
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)

    async with followed_job(tmp_path) as job:
        followers = [asyncio.create_task(follow(job)) for _ in range(5)]
        while pieces:
            count = rng.randrange(1, 10)
            await job.writer.write(*pieces[:count])
            del pieces[:count]
        job.finish()
        for follower in followers:
            assert await follower == content


@async_test
async def test_fifty_readers_of_hundred_thousand_lines_get_every_byte(tmp_path: Path) -> None:
    lines = [b"%06d a line that a script has printed\n" % number for number in range(100_000)]

    async def follow(job: FollowedJob, started: asyncio.Event) -> int:
        """Check that the lines come in order, and return their number."""
        await started.wait()
        with job.log.attach() as cursor:
            seen = 0
            while not cursor.ended:
                for part in await cursor.read():
                    new = part.data.count(b"\n")
                    assert part.data == b"".join(lines[seen : seen + new])
                    seen += new
            return seen

    async with followed_job(tmp_path) as job:
        early, late = asyncio.Event(), asyncio.Event()
        followers = [asyncio.create_task(follow(job, early if number < 40 else late)) for number in range(50)]
        early.set()
        for first in range(0, 100_000, 500):
            await job.writer.write(*lines[first : first + 500])
            if first == 50_000:
                late.set()
        job.finish()
        assert await asyncio.gather(*followers) == [100_000] * 50


@async_test
async def test_wake_and_abort_end_waiting_read(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        cursor = job.log.attach()
        reading = asyncio.create_task(cursor.read())
        await asyncio.sleep(0)
        cursor.wake()
        assert await reading == ()
        assert not cursor.ended
        reading = asyncio.create_task(cursor.read())
        await asyncio.sleep(0)
        aborts = []
        cursor.on_abort = lambda: aborts.append(True)
        job.log.abort_readers(Cancelled("That was all."))
        with pytest.raises(Cancelled):
            await reading
        with pytest.raises(Cancelled):
            await cursor.read()
        assert aborts == [True]
        assert job.last_detach_count == 1


@async_test
async def test_cancelled_read_loses_no_part(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(cursor.read(), 0.01)
            assert not job.log._waiting_readers
            await job.writer.write(b"one\n")
            assert await read_part(cursor) == b"one\n"


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing
            if link.readlink() == path:
                return True
    return False


@async_test
async def test_last_reader_closes_file_and_watch(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as job:
        await job.writer.write(b"one\nrest")
        with job.log.attach():  # the watcher keeps its threads and descriptors
            pass
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for number in range(20):
            with job.log.attach() as cursor, job.log.attach():
                assert await read_part(cursor) == b"one\n"
                assert job.log.readers == 2
            assert job.last_detach_count == number + 2
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert not is_open(job.path)


@async_test
async def test_attach_failure_leaves_no_reader(tmp_path: Path) -> None:
    watcher = Watcher()
    (tmp_path / "log").symlink_to("log")
    log = LogFollower(tmp_path / "log", lambda: False, watcher)
    with pytest.raises(OSError, match="symbolic links"):
        log.attach()
    assert log.readers == 0
    watcher.close()


@async_test
async def test_burst_is_checked_at_most_every_check_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = 0
    check = LogFollower._check

    def counted_check(self: LogFollower) -> None:
        nonlocal checks
        checks += 1
        check(self)

    monkeypatch.setattr(LogFollower, "_check", counted_check)
    async with followed_job(tmp_path) as job:
        with job.log.attach() as cursor:
            started_at = asyncio.get_running_loop().time()
            for _ in range(20):
                await job.writer.write(*[b"line\n"] * 200)
                await asyncio.sleep(0.005)
            await wait_until(lambda: job.log.end == 20_000)
            assert checks <= (asyncio.get_running_loop().time() - started_at) / 0.01 + 3
            assert len(await read_part(cursor)) == 20_000
