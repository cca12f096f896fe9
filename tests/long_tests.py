"""Runs the tests that are marked `long` and writes their result to docs/LONG-TESTS.md: `python -m tests.long_tests`.

Arguments are passed on to pytest, e.g. `-k soak`. The page then has the rows of these tests anew and keeps the others.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "LONG-TESTS.md"

HEAD = """# Long tests

`make test-long` runs the tests that take more than a minute each: soaks, storms of kills, other projects' agents. They
are not part of `.ci/run`. That command writes this page: one row for the last run of each test, with the figures that
the test has measured.

| test | date | commit | result | seconds | figures |
|---|---|---|---|---|---|
"""


def main(arguments: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "long", "--timeout=1800", f"--junitxml={report}", *arguments]
        code = subprocess.run(command, check=False, cwd=ROOT).returncode
        if report.exists():
            rows = {**read_rows(PAGE.read_text() if PAGE.exists() else ""), **dict(rows_of(report.read_text()))}
            PAGE.write_text(HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)))
    return code


def read_rows(page: str) -> dict[str, str]:
    """The rows of the page by the name of their test."""
    return {match[1]: match[0] for match in re.finditer(r"^\| `([^`]+)` \|.*$", page, re.MULTILINE)}


def rows_of(report: str) -> Iterator[tuple[str, str]]:
    """A row for each test of a JUnit report; what a test gave to `record_property` are its figures."""
    date, commit = datetime.now(UTC).date().isoformat(), _commit()
    for case in ET.fromstring(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        name = f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("tests.")
        figures = ", ".join(f"{item.get('name')} {item.get('value')}" for item in case.iter("property"))
        seconds = round(float(case.get("time", "0")))
        yield name, f"| `{name}` | {date} | {commit} | {_result(case)} | {seconds} | {figures} |"


def _result(case: ET.Element) -> str:
    results: Mapping[str, str] = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    return next((results[child.tag] for child in case if child.tag in results), "passed")


def _commit() -> str:
    """The commit that was tested; `+` where the tree has changes on top of it."""
    return _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    command = [shutil.which("git") or "git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
