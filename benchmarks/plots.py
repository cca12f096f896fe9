"""Plots of a run: throughput by concurrency, the distribution of latencies, CPU time of a chunk."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.results import Line, Results
from benchmarks.scenario import FLOOR, FORGELINE

PLAIN_SCENARIO = re.compile(r"plain requests, (\d+) clients?")
LATENCY_SCENARIO = "plain requests, 32 clients"
SIDE_LABELS = {FLOOR: "bare passthrough", FORGELINE: "Forgeline"}
COLOURS = {FLOOR: "#8a8f98", FORGELINE: "#c2410c", "nginx": "#15803d"}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots for which there are figures; none without matplotlib."""
    try:
        import matplotlib  # noqa: PLC0415 - of the extra `bench`, which measuring does not need
    except ImportError:
        return []
    matplotlib.use("svg")
    # Equal figures give equal files.
    matplotlib.rcParams.update({"svg.hashsalt": "forgeline", "svg.fonttype": "none", "font.size": 9})
    pictures = {"throughput": _throughput, "latency": _latency, "cost": _cost}
    return [path for name, plot in pictures.items() if (path := _write_plot(results, folder / f"{name}.svg", plot))]


def _write_plot(results: Results, path: Path, plot: Any) -> Path | None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    if not plot(results, axes):
        return None
    figure.legend(loc="outside lower center", ncols=len(results.sides), frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    return path


def _throughput(results: Results, axes: Any) -> bool:
    lines = {int(match[1]): line for line, match in _plain_lines(results) if line.unit == "/s"}
    if len(lines) < 2:
        return False
    for side in results.sides:
        points = {count: line.values(side) for count, line in sorted(lines.items()) if line.values(side)}
        if points:
            medians = [statistics.median(values) for values in points.values()]
            axes.plot(list(points), medians, marker="o", **_style(side))
            lows, highs = [min(values) for values in points.values()], [max(values) for values in points.values()]
            axes.fill_between(list(points), lows, highs, alpha=0.15, color=COLOURS.get(side), linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="requests/s", title="Plain requests, one core")
    axes.set_xticks(sorted(lines), [str(count) for count in sorted(lines)], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    return True


def _plain_lines(results: Results) -> list[tuple[Line, re.Match[str]]]:
    matches = ((line, PLAIN_SCENARIO.fullmatch(line.scenario)) for line in results.lines)
    return [(line, match) for line, match in matches if match]


def _latency(results: Results, axes: Any) -> bool:
    sides = results.distributions.get(LATENCY_SCENARIO, {})
    if not sides:
        return False
    for side, latencies in sides.items():
        percents = [100 * step / (len(latencies) - 1) for step in range(len(latencies))]
        axes.plot(latencies, percents, **_style(side))
    axes.set(xscale="log", xlabel="ms", ylabel="% of the answers within", title=LATENCY_SCENARIO.capitalize())
    return True


def _cost(results: Results, axes: Any) -> bool:
    lines = [line for line in results.lines if line.label == "CPU s per 100k chunks"]
    if not lines:
        return False
    sides = [side for side in results.sides if any(line.values(side) for line in lines)]
    for index, side in enumerate(sides):
        positions = [number + (index - (len(sides) - 1) / 2) * 0.8 / len(sides) for number in range(len(lines))]
        # Seconds for 100k are tens of microseconds for one.
        costs = [10 * statistics.median(line.values(side) or [0]) for line in lines]
        bars = axes.barh(positions, costs, height=0.8 / len(sides), **_style(side))
        axes.bar_label(bars, [f"{cost:.2g}" if cost else "" for cost in costs], padding=2, fontsize=7)
    axes.set_yticks(range(len(lines)), [line.scenario.replace(", ", ",\n", 1) for line in lines])
    axes.invert_yaxis()
    axes.set(xlabel="microseconds of CPU for a chunk", title="Cost of a chunk (floor: as in the table)")
    return True


def _style(side: str) -> dict[str, Any]:
    return {"label": SIDE_LABELS.get(side, side), "color": COLOURS.get(side)}
