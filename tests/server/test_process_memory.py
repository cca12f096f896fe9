"""What the C library does with freed memory, measured in processes of their own."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from server import fast

MEGABYTE = 1_000_000
# Takes so many pieces of a size and frees them; says how many megabytes of that are still the process's.
CHILD = """
import sys
from resource import getpagesize
from server import fast

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * getpagesize()

if sys.argv[1] == "kept":
    fast.keep_freed_memory()
before = resident()
pieces = [bytearray(int(sys.argv[3])) for _ in range(int(sys.argv[2]))]
del pieces
print((resident() - before) // 1_000_000)
"""

pytestmark = [
    pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has such a setting"),
    pytest.mark.skipif(not fast.ENABLED, reason="FORGELINE_FAST=0 leaves the allocator as it is"),
]


def megabytes_after_free(mode: str, pieces: int, size: int) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, mode, str(pieces), str(size)], capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


def test_memory_freed_by_streams_is_kept() -> None:
    assert megabytes_after_free("kept", 30, MEGABYTE) >= 25
    assert megabytes_after_free("as it was", 30, MEGABYTE) <= 5


def test_memory_freed_by_large_block_is_returned() -> None:
    assert megabytes_after_free("kept", 5, 6 * MEGABYTE) <= 5


def test_memory_kept_is_bounded() -> None:
    assert megabytes_after_free("kept", 200, MEGABYTE) <= 70
