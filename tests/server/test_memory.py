"""What the C library does with freed memory, looked at in processes of their own."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MEGABYTE = 1_000_000
# Takes so many pieces of a size and frees them; says how many megabytes of that are still the process's.
CHILD = """
import sys
from resource import getpagesize
from server import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * getpagesize()

if sys.argv[1] == "kept":
    memory.keep_freed_memory()
before = resident()
pieces = [bytearray(int(sys.argv[3])) for _ in range(int(sys.argv[2]))]
del pieces
print((resident() - before) // 1_000_000)
"""

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has such a setting")


def left(how: str, pieces: int, size: int) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, how, str(pieces), str(size)], capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


def test_what_streams_free_stays_for_the_next() -> None:
    assert left("kept", 30, MEGABYTE) >= 25
    assert left("as it was", 30, MEGABYTE) <= 5


def test_what_a_picture_freed_goes_back() -> None:
    assert left("kept", 5, 6 * MEGABYTE) <= 5


def test_no_more_is_kept_than_a_bound() -> None:
    assert left("kept", 200, MEGABYTE) <= 70
