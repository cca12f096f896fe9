"""The report: aims, the table, and its round trip through JSON."""

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


def make_line(aim: AnyAim | None, floor: list[float | None], forgeline: list[float | None], **keys: str) -> Line:
    fields = {"scenario": "a scenario", "floor_label": "a floor", "label": "requests", "unit": "/s", **keys}
    return Line(aim=aim, rounds={FLOOR: floor, FORGELINE: forgeline}, **fields)


def make_results(*lines: Line) -> Results:
    return Results(
        finished_at="now",
        duration=1,
        machine={"cpu": "one", "cores": "2", "kernel": "6"},
        versions={"python": "3"},
        sides=[FLOOR, FORGELINE],
        lines=list(lines),
        distributions={"plain requests, 32 clients": {FLOOR: quantiles([0.1, 0.2])}},
        failures=["nginx, a scenario: it ended"],
        warnings=[],
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
def test_aim_is_met_within_limit_only(aim: AnyAim, floor: float, met: float, missed: float) -> None:
    assert make_line(aim, [floor], [met]).is_met(FORGELINE) is True
    assert make_line(aim, [floor], [missed]).is_met(FORGELINE) is False


def test_compare_to_floor_skips_rounds_without_both_sides() -> None:
    line = make_line(AtLeast(1), [100, 200, None], [50, 200, 300])
    assert line.compare_to_floor(FORGELINE) == [0.5, 1.0]
    assert line.values(FORGELINE) == [50, 200, 300]


def test_aim_without_figure_is_neither_met_nor_missed() -> None:
    assert make_line(AtLeast(1), [100], [None]).is_met(FORGELINE) is None


def test_report_text_shows_spread_ratio_and_aim() -> None:
    text = report.as_text(
        make_results(make_line(AtLeast(0.5), [100, 110], [60, 66]), make_line(None, [1], [2], label="other"))
    )
    assert text.count("a scenario (floor: a floor)") == 1
    assert "105 (100..110)" in text
    assert "0.6 (0.6..0.6)" in text
    assert ">= 0.5: met" in text
    assert "! failed: nginx, a scenario: it ended" in text


def test_report_markdown_survives_json_round_trip() -> None:
    results = make_results(make_line(Beyond(18), [1], [2]), make_line(Within(0.2), [1], [None]))
    assert report.as_markdown(msgspec.json.decode(msgspec.json.encode(results), type=Results)) == report.as_markdown(
        results
    )


def test_report_markdown_rows_have_equal_cell_counts() -> None:
    rows = [
        line for line in report.as_markdown(make_results(make_line(None, [1], [2]))).splitlines() if line[:1] == "|"
    ]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 4


def test_disagreements_only_where_ratio_spreads_do_not_overlap() -> None:
    before = make_results(make_line(AtLeast(1), [100, 100], [50, 60]))
    assert report.disagreements(before, make_results(make_line(AtLeast(1), [200, 200], [118, 140]))) == []
    (message,) = report.disagreements(before, make_results(make_line(AtLeast(1), [200, 200], [122, 140])))
    assert message == "a scenario: requests: 0.55 (0.5..0.6) before, 0.655 (0.61..0.7) now"


def test_quantiles_are_in_half_percents() -> None:
    outcome = Outcome(seconds=1, latency_ms=quantiles([number / 1000 for number in range(201)]))
    assert (outcome.latency_p50, outcome.latency_p99) == (100, 198)
    assert Outcome(seconds=1).latency_p50 == 0


def test_scenarios_have_unique_names_and_labels() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        assert len({figure.label for figure in scenario.figures}) == len(scenario.figures)


def test_plots_draw_only_available_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = [
        make_line(None, [100], [60], scenario=f"plain requests, {count} clients", floor_label="b") for count in (4, 32)
    ]
    cost = make_line(None, [1], [2], label="CPU s per 100k chunks", unit="s")
    plot_files = plots.draw(make_results(*lines, cost), tmp_path)
    assert [path.name for path in plot_files] == ["throughput.svg", "latency.svg", "cost.svg"]
    assert all(path.read_text().startswith("<?xml") for path in plot_files)
    assert plots.draw(make_results(), tmp_path) == [tmp_path / "latency.svg"]
