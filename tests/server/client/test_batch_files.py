"""The files of a batch, tested directly where a real batch would be too slow: long lines, and many."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from server.client import batch_files
from server.client.batch_files import BatchOutput, InputLine, count_lines, read_lines


def test_read_lines_skips_blank_lines_and_keeps_numbers(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n{}\r\n   \n\n[1]")
    assert [(line.number, line.content) for line in read_lines(source)] == [(2, b"{}"), (5, b"[1]")]
    assert count_lines(source) == 2


def test_read_lines_skips_content_of_too_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "MAX_LINE_BYTES", 10)
    monkeypatch.setattr(batch_files, "SKIP_BLOCK_BYTES", 4)
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"a" * 9 + b"\n" + b"b" * 10 + b"\n" + b"c" * 35 + b"\n" + b"d\n" + b"e" * 12)
    lines = [(line.number, line.content) for line in read_lines(source)]
    assert lines == [(1, b"a" * 9), (2, b""), (3, b""), (4, b"d"), (5, b"")]


def test_batch_output_takes_few_bytes_of_memory_per_line(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with BatchOutput(target) as records:
        for number in range(1, 20_001):
            records.append(InputLine(number, b"%d" % number), {"text": "x" * 200})
    tracemalloc.start()
    try:
        with BatchOutput(target) as reopened:
            assert reopened.completed.count == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
