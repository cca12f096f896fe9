"""The bypasses of aiohttp's public interface, and the switch that turns them off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

READ_LOW_WATER = """
import asyncio
from unittest.mock import Mock
from aiohttp import StreamReader
from pipeline import fast

async def main():
    content = StreamReader(Mock(), 65536)
    fast.wake_parser_once(content)
    print(content._low_water)

asyncio.run(main())
"""


@pytest.mark.parametrize(("value", "low_water"), [("1", 1), ("0", 65536)])
def test_fast_switch_decides_about_low_water_mark(value: str, low_water: int) -> None:
    environ = {"FORGELINE_FAST": value, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", READ_LOW_WATER], env=environ, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == low_water
