"""Pictures of a run: throughput against concurrency, how latencies are distributed, what a chunk costs."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.results import Line, Results
from benchmarks.scenario import FLOOR, FORGELINE

PLAIN = re.compile(r"plain requests, (\d+) clients?")
BUSY = "plain requests, 32 clients"
NAMES = {FLOOR: "bare passthrough", FORGELINE: "Forgeline"}
COLOURS = {FLOOR: "#8a8f98", FORGELINE: "#c2410c", "nginx": "#15803d"}


def draw(found: Results, folder: Path) -> list[Path]:
    """Writes the pictures for which there are figures; none where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: PLC0415 - of the extra `bench`, which measuring does not need
    except ImportError:
        return []
    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "forgeline", "svg.fonttype": "none", "font.size": 9})
    pictures = {"throughput": _throughput, "latency": _latency, "cost": _cost}
    return [path for name, plot in pictures.items() if (path := _written(found, folder / f"{name}.svg", plot))]


def _written(found: Results, path: Path, plot: Any) -> Path | None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    if not plot(found, axes):
        return None
    figure.legend(loc="outside lower center", ncols=len(found.sides), frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    return path


def _throughput(found: Results, axes: Any) -> bool:
    lines = {int(match[1]): line for line, match in _plain(found) if line.unit == "/s"}
    if len(lines) < 2:
        return False
    for side in found.sides:
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


def _plain(found: Results) -> list[tuple[Line, re.Match[str]]]:
    matches = ((line, PLAIN.fullmatch(line.scenario)) for line in found.lines)
    return [(line, match) for line, match in matches if match]


def _latency(found: Results, axes: Any) -> bool:
    sides = found.distributions.get(BUSY, {})
    if not sides:
        return False
    for side, latencies in sides.items():
        percents = [100 * step / (len(latencies) - 1) for step in range(len(latencies))]
        axes.plot(latencies, percents, **_style(side))
    axes.set(xscale="log", xlabel="ms", ylabel="% of the answers within", title=BUSY.capitalize())
    return True


def _cost(found: Results, axes: Any) -> bool:
    lines = [line for line in found.lines if line.label == "CPU s per 100k chunks"]
    if not lines:
        return False
    sides = [side for side in found.sides if any(line.values(side) for line in lines)]
    for at, side in enumerate(sides):
        places = [number + (at - (len(sides) - 1) / 2) * 0.8 / len(sides) for number in range(len(lines))]
        # Seconds for 100k are tens of microseconds for one.
        costs = [10 * statistics.median(line.values(side) or [0]) for line in lines]
        bars = axes.barh(places, costs, height=0.8 / len(sides), **_style(side))
        axes.bar_label(bars, [f"{cost:.2g}" if cost else "" for cost in costs], padding=2, fontsize=7)
    axes.set_yticks(range(len(lines)), [line.scenario.replace(", ", ",\n", 1) for line in lines])
    axes.invert_yaxis()
    axes.set(xlabel="microseconds of CPU for a chunk", title="Cost of a chunk (floor: as in the table)")
    return True


def _style(side: str) -> dict[str, Any]:
    return {"label": NAMES.get(side, side), "color": COLOURS.get(side)}
