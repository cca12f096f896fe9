"""What the log tells of a bug, in either format."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

BUG = """
import structlog
from server.observability import logs

def answer(text):
    return 1 / 0

logs.configure({format!r})
try:
    answer("my-secret-" + "text")
except ZeroDivisionError:
    structlog.get_logger("forgeline").exception("stage failed")
"""


@pytest.mark.parametrize("format", ["console", "json"])
def test_log_traceback_has_no_variable_values(format: str) -> None:
    command = [sys.executable, "-c", BUG.format(format=format)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=50)
    assert "ZeroDivisionError" in result.stderr
    assert "in answer" in result.stderr
    assert "my-secret-text" not in result.stderr
