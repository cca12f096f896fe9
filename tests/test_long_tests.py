"""The page that `make test-long` writes: one row for the last run of each test."""

from __future__ import annotations

import pytest

from tests.long_tests import HEAD, read_rows, rows_of

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.benchmarks.test_long_soak" name="test_soak" time="612.4"><properties>
<property name="MB" value="+3"/></properties></testcase>
<testcase classname="tests.a" name="test_b" time="61"><failure message="no"/></testcase>
</testsuite></testsuites>"""


def test_report_rows_have_result_seconds_and_figures() -> None:
    rows = dict(rows_of(REPORT))
    assert rows.keys() == {"benchmarks.test_long_soak::test_soak", "a::test_b"}
    assert rows["benchmarks.test_long_soak::test_soak"].endswith("| passed | 612 | MB +3 |")
    assert rows["a::test_b"].endswith("| failed | 61 |  |")


@pytest.mark.parametrize("page", ["", HEAD])
def test_page_without_rows_has_none(page: str) -> None:
    assert read_rows(page) == {}


def test_page_keeps_rows_of_tests_that_did_not_run() -> None:
    rows = dict(rows_of(REPORT))
    assert read_rows(HEAD + "".join(f"{row}\n" for row in rows.values())) == rows
