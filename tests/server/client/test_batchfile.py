"""The files of a batch, where their own doors are too slow to knock at: long lines, and many."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from server.client import batchfile
from server.client.batchfile import Line, Records, count_lines, read_lines


def test_lines_keep_their_numbers_whatever_stands_between_them(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n{}\r\n   \n\n[1]")
    assert [(line.number, line.content) for line in read_lines(source)] == [(2, b"{}"), (5, b"[1]")]
    assert count_lines(source) == 2


def test_a_line_that_is_too_long_is_not_read_and_those_after_it_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchfile, "MAX_LINE", 10)
    monkeypatch.setattr(batchfile, "BLOCK", 4)
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"a" * 9 + b"\n" + b"b" * 10 + b"\n" + b"c" * 35 + b"\n" + b"d\n" + b"e" * 12)
    found = [(line.number, line.content) for line in read_lines(source)]
    assert found == [(1, b"a" * 9), (2, b""), (3, b""), (4, b"d"), (5, b"")]


def test_what_is_done_takes_a_few_bytes_a_line(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with Records(target) as records:
        for number in range(1, 20_001):
            records.append(Line(number, b"%d" % number), {"text": "x" * 200})
    tracemalloc.start()
    try:
        with Records(target) as again:
            assert again.done.count == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
