"""What the log tells of a bug, in either format."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

BUG = """
import structlog
from server import logs

def answer(text):
    return 1 / 0

logs.configure({format!r})
try:
    answer("my-secret-" + "text")
except ZeroDivisionError:
    structlog.get_logger("forgeline").exception("stage failed")
"""


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_traceback_shows_lines_and_never_the_values_of_variables(format: str) -> None:
    command = [sys.executable, "-c", BUG.format(format=format)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=50)
    assert "ZeroDivisionError" in told.stderr
    assert "in answer" in told.stderr
    assert "my-secret-text" not in told.stderr
