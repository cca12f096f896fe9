"""A log that another process writes reaches all followers, byte for byte, however it is written, whoever is slow."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from infraforge_runner import tail as tail_module
from infraforge_runner.logfile import LogFile
from infraforge_runner.tail import KEPT, MAX_PART, LogCursor, LogPart, Tail
from infraforge_runner.watch import Watcher
from pipeline.errors import Cancelled
from tests.aio import asynchronous, comes_true
from tests.writer import Writer, writing

NEVER = 1000.0  # seconds


class Job:
    """A log, its tail, and who writes to it."""

    def __init__(self, path: Path, watcher: Watcher) -> None:
        self.path = path
        self.finished = False
        self.idle = 0
        self.tail = Tail(path, lambda: self.finished, watcher)
        self.tail.on_idle = self._is_idle
        self.tail._watch.anyway = NEVER  # by events alone
        self.writer: Writer

    def _is_idle(self) -> None:
        self.idle += 1

    def finish(self) -> None:
        self.finished = True
        self.tail.look()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Job]:
    """A job whose log is not there yet, and a process that will write it."""
    (folder / "job").mkdir()
    watcher = Watcher()
    job = Job(folder / "job" / "log", watcher)
    async with writing(job.path) as job.writer:
        yield job
    assert job.tail.followers == 0
    watcher.close()


async def rest(cursor: LogCursor) -> list[LogPart]:
    """All parts to the end; that they join is checked on the way."""
    parts: list[LogPart] = []
    while not cursor.ended:
        position = cursor.position
        for part in await cursor.read():
            assert part.offset == position
            assert len(part.data) <= MAX_PART
            position = part.next_offset
            parts.append(part)
        assert cursor.position == position
    return parts


def joined(parts: list[LogPart]) -> bytes:
    return b"".join(part.data for part in parts)


async def one(cursor: LogCursor) -> bytes:
    (part,) = await cursor.read()
    return part.data


@asynchronous
async def test_a_log_that_is_not_there_yet_is_followed_once_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            reading = asyncio.create_task(one(cursor))
            await asyncio.sleep(0)
            await job.writer.write(b"hello\n")
            assert await reading == b"hello\n"
            job.finish()
            assert await rest(cursor) == []


@asynchronous
async def test_a_job_that_ends_without_a_log_has_an_empty_one(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            assert not cursor.ended
            job.finish()
            assert await rest(cursor) == []
        with job.tail.attach() as cursor:
            assert cursor.ended


@asynchronous
async def test_a_line_is_handed_out_as_soon_as_it_is_written(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            for number in range(20):
                await job.writer.write(b"line %d\n" % number)
                assert await one(cursor) == b"line %d\n" % number


@asynchronous
async def test_a_part_ends_with_a_line_and_what_is_behind_waits_for_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            await job.writer.write(b"one\ntwo\nthr")
            assert await one(cursor) == b"one\ntwo\n"
            await job.writer.write(b"ee\nfo")
            assert await one(cursor) == b"three\n"


@asynchronous
async def test_a_progress_bar_is_not_delayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", NEVER)
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            for percent in range(0, 100, 10):
                await job.writer.write(b"\r%3d %%\r" % percent)
                assert await one(cursor) == b"\r%3d %%\r" % percent


@asynchronous
async def test_a_rest_without_an_end_is_handed_out_after_a_second_and_not_before(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await job.writer.write(b"Continue? ")
            assert await one(cursor) == b"Continue? "
            assert loop.time() - began > 0.9
            await job.writer.write(b"yes\n")
            assert await one(cursor) == b"yes\n"


@asynchronous
async def test_what_trickles_without_a_line_end_is_never_older_than_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", 0.1)
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            reading = asyncio.create_task(one(cursor))
            while not reading.done():
                await job.writer.write(b".")
                await asyncio.sleep(0.01)
            assert set(await reading) == set(b".")


@asynchronous
async def test_a_second_follower_of_a_rest_that_was_handed_out_gets_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", 0.05)
    async with running(tmp_path) as job:
        with job.tail.attach() as first:
            await job.writer.write(b"one\nCont")
            assert await one(first) == b"one\n"
            assert await one(first) == b"Cont"
            monkeypatch.setattr(tail_module, "REST_AFTER", NEVER)
            with job.tail.attach(6) as second:
                assert await one(second) == b"nt"
            await job.writer.write(b"inue\n")
            assert await one(first) == b"inue\n"


@asynchronous
async def test_who_comes_back_in_the_middle_of_a_line_gets_the_rest_of_it(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        await job.writer.write(b"one\nCont")
        with job.tail.attach(8) as cursor:
            reading = asyncio.create_task(one(cursor))
            await job.writer.write(b"inue\n")
            assert await reading == b"inue\n"


@asynchronous
async def test_at_the_end_everything_is_handed_out_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", NEVER)
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            await job.writer.write(b"one\nlast words \xe2\x82")
            assert await one(cursor) == b"one\n"
            job.finish()
            assert joined(await rest(cursor)) == b"last words \xe2\x82"


CHARACTERS = "aé€😀ñ\N{COMBINING ACUTE ACCENT}中𝄞".encode()


@pytest.mark.parametrize("ends", [b"", b"\n"])
@asynchronous
async def test_characters_that_are_written_byte_by_byte_are_never_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bytes
) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", 0.001)
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            reading = asyncio.create_task(rest(cursor))
            for number in CHARACTERS * 5 + ends:
                await job.writer.write(bytes([number]))
                await asyncio.sleep(0.003)
            job.finish()
            parts = await reading
            assert joined(parts) == CHARACTERS * 5 + ends
            assert len(parts) > 5
            assert "".join(part.data.decode() for part in parts).encode() == joined(parts)


@pytest.mark.parametrize("data", [b"\xff", b"\xc3(", b"\xe2\x28", b"\xf5", b"\x80\x80\x80", b"\xe0\x80"])
@asynchronous
async def test_what_can_become_no_character_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", 0.05)
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            await job.writer.write(data)
            assert await one(cursor) == data


@asynchronous
async def test_a_line_longer_than_a_part_does_not_wait_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "REST_AFTER", NEVER)
    line = CHARACTERS * (200_000 // len(CHARACTERS))
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            await job.writer.write(line)
            parts: list[LogPart] = []
            while cursor.position < len(line):
                parts += await cursor.read()
            assert joined(parts) == line
            for part in parts:
                part.data.decode()
                assert len(part.data) <= MAX_PART
            assert len(parts) == 4


@asynchronous
async def test_a_log_that_is_there_comes_in_parts_that_end_with_lines(tmp_path: Path) -> None:
    content = b"".join(b"line %d\n" % number for number in range(50_000))
    async with running(tmp_path) as job:
        await job.writer.write(content)
        job.finish()
        with job.tail.attach() as cursor:
            parts = await rest(cursor)
        assert joined(parts) == content
        assert len(parts) == -(-len(content) // MAX_PART)
        assert all(part.data.endswith(b"\n") for part in parts)


@asynchronous
async def test_followers_at_the_same_place_share_a_part_and_what_it_is_encoded_as(tmp_path: Path) -> None:
    encoded = []

    def encode(part: LogPart) -> bytes:
        encoded.append(part)
        return part.data.upper()

    async with running(tmp_path) as job:
        cursors = [job.tail.attach() for _ in range(10)]
        for line in (b"one\n", b"two\n"):
            await job.writer.write(line)
            parts = [part for cursor in cursors for part in await cursor.read()]
            assert len({id(part) for part in parts}) == 1
            assert {part.encoded_as("upper", encode) for part in parts} == {line.upper()}
        assert len(encoded) == 2
        for cursor in cursors:
            cursor.close()


@asynchronous
async def test_who_is_behind_catches_up_alone_and_then_shares_the_live_parts(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as live, job.tail.attach() as slow:
            for number in range(5 * KEPT):
                await job.writer.write(b"line %d\n" % number)
                await live.read()
            caught_up = await slow.read()
            assert joined(list(caught_up)) == b"".join(b"line %d\n" % number for number in range(5 * KEPT))
            await job.writer.write(b"news\n")
            assert (await live.read())[0] is (await slow.read())[0]


@asynchronous
async def test_a_follower_that_reads_nothing_delays_nobody_and_what_is_kept_does_not_grow(tmp_path: Path) -> None:
    block = b"x" * 999 + b"\n"
    async with running(tmp_path) as job:
        with job.tail.attach() as live, job.tail.attach() as asleep:
            for _ in range(100):
                await job.writer.write(block * 50)
                while live.position < job.path.stat().st_size:
                    await live.read()
            assert len(job.tail._parts) <= KEPT
            job.finish()
            assert joined(await rest(asleep)) == block * 5000


@pytest.mark.parametrize("seed", range(5))
@asynchronous
async def test_any_bytes_in_any_pieces_reach_followers_who_come_and_go_at_any_time(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    alphabet = [b"\n", b"\r", b"\r\n", "é".encode(), "😀".encode(), b"\xff", b"\x1b[31m", b"<b>", b"word " * 2000]
    pieces = [b"".join(chance.choices(alphabet, k=chance.randrange(1, 9))) for _ in range(150)]
    content = b"".join(pieces)

    async def follow(job: Job) -> bytes:
        got, offset = b"", 0
        while True:
            with job.tail.attach(offset) as cursor:
                for _ in range(chance.randrange(1, 10)):
                    if cursor.ended:
                        return got
                    got += joined(list(await cursor.read()))
                offset = cursor.position
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)

    async with running(tmp_path) as job:
        followers = [asyncio.create_task(follow(job)) for _ in range(5)]
        while pieces:
            count = chance.randrange(1, 10)
            await job.writer.write(*pieces[:count])
            del pieces[:count]
        job.finish()
        for follower in followers:
            assert await follower == content


@asynchronous
async def test_fifty_followers_of_a_hundred_thousand_lines_get_every_byte(tmp_path: Path) -> None:
    lines = [b"%06d a line that a script has printed\n" % number for number in range(100_000)]

    async def follow(job: Job, started: asyncio.Event) -> int:
        """How many lines came; that they are the right ones, in order, is checked as they come."""
        await started.wait()
        with job.tail.attach() as cursor:
            seen = 0
            while not cursor.ended:
                for part in await cursor.read():
                    new = part.data.count(b"\n")
                    assert part.data == b"".join(lines[seen : seen + new])
                    seen += new
            return seen

    async with running(tmp_path) as job:
        early, late = asyncio.Event(), asyncio.Event()
        followers = [asyncio.create_task(follow(job, early if number < 40 else late)) for number in range(50)]
        early.set()
        for first in range(0, 100_000, 500):
            await job.writer.write(*lines[first : first + 500])
            if first == 50_000:
                late.set()
        job.finish()
        assert await asyncio.gather(*followers) == [100_000] * 50


@asynchronous
async def test_a_nudge_and_a_cut_end_a_read_that_waits(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        cursor = job.tail.attach()
        reading = asyncio.create_task(cursor.read())
        await asyncio.sleep(0)
        cursor.nudge()
        assert await reading == ()
        assert not cursor.ended
        reading = asyncio.create_task(cursor.read())
        await asyncio.sleep(0)
        cut = []
        cursor.on_cut = lambda: cut.append(True)
        job.tail.cut(Cancelled("That was all."))
        with pytest.raises(Cancelled):
            await reading
        with pytest.raises(Cancelled):
            await cursor.read()
        assert cut == [True]
        assert job.idle == 1


@asynchronous
async def test_a_read_that_is_cancelled_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(cursor.read(), 0.01)
            assert not job.tail._waiting
            await job.writer.write(b"one\n")
            assert await one(cursor) == b"one\n"


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own descriptor
            if link.readlink() == path:
                return True
    return False


@asynchronous
async def test_the_last_follower_closes_all_that_the_first_has_opened(tmp_path: Path) -> None:
    async with running(tmp_path) as job:
        await job.writer.write(b"one\nrest")
        with job.tail.attach():  # the watcher's own threads and descriptors stay
            pass
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for number in range(20):
            with job.tail.attach() as cursor, job.tail.attach():
                assert await one(cursor) == b"one\n"
                assert job.tail.followers == 2
            assert job.idle == number + 2
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert not is_open(job.path)


@asynchronous
async def test_a_tail_that_can_not_be_opened_leaves_no_follower_behind(tmp_path: Path) -> None:
    watcher = Watcher()
    (tmp_path / "log").symlink_to("log")
    tail = Tail(tmp_path / "log", lambda: False, watcher)
    with pytest.raises(OSError, match="symbolic links"):
        tail.attach()
    assert tail.followers == 0
    watcher.close()


@asynchronous
async def test_bursts_are_looked_at_no_oftener_than_every_ten_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = Tail._look

    def counted(self: Tail) -> None:
        nonlocal looks
        looks += 1
        look(self)

    monkeypatch.setattr(Tail, "_look", counted)
    async with running(tmp_path) as job:
        with job.tail.attach() as cursor:
            began = asyncio.get_running_loop().time()
            for _ in range(20):
                await job.writer.write(*[b"line\n"] * 200)
                await asyncio.sleep(0.005)
            await comes_true(lambda: job.tail.end == 20_000)
            assert looks <= (asyncio.get_running_loop().time() - began) / 0.01 + 3
            assert len(await one(cursor)) == 20_000


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 3, b""),
        (b"", 0, b""),
        (b"one\ntwo\nthree\n", 0, b""),
        (b"one\ntwo\nthree\n", 1, b"three\n"),
        (b"one\ntwo\nthree\n", 2, b"two\nthree\n"),
        (b"one\ntwo\nthree\n", 3, b"one\ntwo\nthree\n"),
        (b"one\ntwo\nthree\n", 99, b"one\ntwo\nthree\n"),
        (b"one\ntwo\nthr", 1, b"thr"),
        (b"one\ntwo\nthr", 2, b"two\nthr"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"\n", 1, b"\n"),
        (b"one\n10 %\r20 %\r", 1, b"10 %\r20 %\r"),
        (b"x" * 200_000 + b"\nlast\n", 1, b"last\n"),
        (b"first\n" + b"x" * 200_000 + b"\n", 1, b"x" * 200_000 + b"\n"),
        (b"a\n" * 100_000, 70_000, b"a\n" * 70_000),
    ],
)
@asynchronous
async def test_the_last_lines_begin_where_tail_says(
    tmp_path: Path, content: bytes, lines: int, expected: bytes
) -> None:
    (tmp_path / "log").write_bytes(content)
    with LogFile(tmp_path / "log") as file:
        start = await file.start_of_last_lines(lines, file.size())
        assert file.read(start, len(content)) == expected


@asynchronous
async def test_the_last_lines_of_a_gigabyte_are_found_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("wb") as log:
        log.truncate(1_000_000_000)
        log.seek(0, os.SEEK_END)
        log.write(b"".join(b"line %d\n" % number for number in range(10_000)))
    with LogFile(tmp_path / "log") as file:
        blocks = 0
        read = file.read

        def counted(offset: int, count: int) -> bytes:
            nonlocal blocks
            blocks += 1
            return read(offset, count)

        monkeypatch.setattr(file, "read", counted)
        start = await file.start_of_last_lines(9_999, file.size())
        assert blocks <= 2
        assert file.read(start, 20) == b"line 1\nline 2\nline 3"[:20]
