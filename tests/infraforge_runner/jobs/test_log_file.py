"""LogFile: the offset of the last lines of a log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infraforge_runner.jobs.log_file import LogFile
from tests.async_tests import async_test


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
@async_test
async def test_find_last_lines_matches_tail(tmp_path: Path, content: bytes, lines: int, expected: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    with LogFile(tmp_path / "log") as file:
        start = await file.find_last_lines(lines, file.size())
        assert file.read(start, len(content)) == expected


@async_test
async def test_find_last_lines_of_huge_file_reads_only_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("wb") as log:
        log.truncate(1_000_000_000)
        log.seek(0, os.SEEK_END)
        log.write(b"".join(b"line %d\n" % number for number in range(10_000)))
    with LogFile(tmp_path / "log") as file:
        blocks = 0
        read = file.read

        def counted_read(offset: int, count: int) -> bytes:
            nonlocal blocks
            blocks += 1
            return read(offset, count)

        monkeypatch.setattr(file, "read", counted_read)
        start = await file.find_last_lines(9_999, file.size())
        assert blocks <= 2
        assert file.read(start, 20) == b"line 1\nline 2\nline 3"[:20]
