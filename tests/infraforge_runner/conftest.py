"""Fixtures of the tests of jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infraforge_runner.process_helpers import find_supervisors


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a server whose jobs outlive it, but not the test."""
    yield tmp_path
    for pid in find_supervisors(tmp_path / "data"):
        os.kill(pid, signal.SIGTERM)  # it ends its job first
