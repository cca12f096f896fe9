"""The whole soak: ten minutes of mixed load, without growth of memory and without leaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_soak_of_ten_minutes_leaves_memory_flat(record_property: Callable[[str, object], None]) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "600"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    for slope in re.findall(r"[+-][\d.]+ MB/min", result.stdout):
        record_property("memory", slope)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
