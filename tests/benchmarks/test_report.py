"""The table: what is aimed at, what is met, and that it is the same when it is read back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks import plots, report
from benchmarks.figures import AnyAim, AtLeast, AtMost, Below, Beyond, Within
from benchmarks.outcome import Outcome, quantiles
from benchmarks.results import Line, Results
from benchmarks.scenario import FLOOR, FORGELINE
from benchmarks.scenarios import SCENARIOS


def a_line(aim: AnyAim | None, floor: list[float | None], mine: list[float | None], **keys: str) -> Line:
    named = {"scenario": "a scenario", "beside": "a floor", "label": "requests", "unit": "/s", **keys}
    return Line(aim=aim, rounds={FLOOR: floor, FORGELINE: mine}, **named)


def results_of(*lines: Line) -> Results:
    return Results(
        at="now",
        took=1,
        machine={"cpu": "one", "cores": "2", "kernel": "6"},
        versions={"python": "3"},
        sides=[FLOOR, FORGELINE],
        lines=list(lines),
        distributions={"plain requests, 32 clients": {FLOOR: quantiles([0.1, 0.2])}},
        failed=["nginx, a scenario: it ended"],
        doubts=[],
    )


@pytest.mark.parametrize(
    ("aim", "floor", "met", "missed"),
    [
        (AtLeast(0.5), 100, 50, 49),
        (AtMost(2), 100, 200, 201),
        (Within(0.2), 100, 119, 79),
        (Beyond(18), 100, 118, 119),
        (Below(10), 100, 9, 10),
    ],
)
def test_an_aim_says_when_it_is_missed(aim: AnyAim, floor: float, met: float, missed: float) -> None:
    assert a_line(aim, [floor], [met]).met(FORGELINE) is True
    assert a_line(aim, [floor], [missed]).met(FORGELINE) is False


def test_rounds_are_compared_one_by_one_and_those_without_both_sides_not() -> None:
    line = a_line(AtLeast(1), [100, 200, None], [50, 200, 300])
    assert line.compared(FORGELINE) == [0.5, 1.0]
    assert line.values(FORGELINE) == [50, 200, 300]


def test_a_side_without_a_figure_neither_meets_nor_misses() -> None:
    assert a_line(AtLeast(1), [100], [None]).met(FORGELINE) is None


def test_the_table_has_each_scenario_once_with_spread_ratio_and_aim() -> None:
    text = report.as_text(results_of(a_line(AtLeast(0.5), [100, 110], [60, 66]), a_line(None, [1], [2], label="other")))
    assert text.count("a scenario (floor: a floor)") == 1
    assert "105 (100..110)" in text
    assert "0.6 (0.6..0.6)" in text
    assert ">= 0.5: met" in text
    assert "! failed: nginx, a scenario: it ended" in text


def test_the_table_is_the_same_when_results_are_read_back() -> None:
    found = results_of(a_line(Beyond(18), [1], [2]), a_line(Within(0.2), [1], [None]))
    assert report.as_markdown(msgspec.json.decode(msgspec.json.encode(found), type=Results)) == report.as_markdown(
        found
    )


def test_a_table_in_markdown_has_as_many_cells_in_every_row() -> None:
    rows = [line for line in report.as_markdown(results_of(a_line(None, [1], [2]))).splitlines() if line[:1] == "|"]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 4


def test_two_runs_agree_where_the_spreads_of_their_ratios_touch() -> None:
    before = results_of(a_line(AtLeast(1), [100, 100], [50, 60]))
    assert report.disagreements(before, results_of(a_line(AtLeast(1), [200, 200], [118, 140]))) == []
    (said,) = report.disagreements(before, results_of(a_line(AtLeast(1), [200, 200], [122, 140])))
    assert said == "a scenario: requests: 0.55 (0.5..0.6) before, 0.655 (0.61..0.7) now"


def test_quantiles_are_in_half_percents() -> None:
    outcome = Outcome(seconds=1, whole_ms=quantiles([number / 1000 for number in range(201)]))
    assert (outcome.whole_p50, outcome.whole_p99) == (100, 198)
    assert Outcome(seconds=1).whole_p50 == 0


def test_each_scenario_has_a_name_of_its_own_and_each_figure_in_it_too() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        assert len({figure.label for figure in scenario.figures}) == len(scenario.figures)


def test_pictures_are_drawn_from_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = [a_line(None, [100], [60], scenario=f"plain requests, {count} clients", beside="b") for count in (4, 32)]
    cost = a_line(None, [1], [2], label="CPU s per 100k chunks", unit="s")
    drawn = plots.draw(results_of(*lines, cost), tmp_path)
    assert [path.name for path in drawn] == ["throughput.svg", "latency.svg", "cost.svg"]
    assert all(path.read_text().startswith("<?xml") for path in drawn)
    assert plots.draw(results_of(), tmp_path) == [tmp_path / "latency.svg"]
