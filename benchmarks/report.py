"""The table, and the same as JSON."""

import importlib.metadata
import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scenarios import Figure

PACKAGES = ("tornado", "aiohttp", "msgspec")
FLOOR = "passthrough"
BUSY = 0.95  # of a core: then the load side may have been the limit
TOO_SHORT = 0.1  # seconds: the kernel counts in hundredths
DISTURBED = 0.1  # of a core, used by processes that have nothing to do with this


@dataclass
class Line:
    """One figure of one scenario, in every round, per target."""

    scenario: str
    figure: Figure
    rounds: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # target -> why there is no figure

    def ratios(self, target: str) -> list[float]:
        """Round by round: what disturbs the machine for a while disturbs both sides of a ratio."""
        pairs = zip(self.rounds.get(target, []), self.rounds.get(FLOOR, []), strict=False)
        return [mine / floor for mine, floor in pairs if floor]

    def verdict(self, target: str) -> str:
        figure, ratios = self.figure, self.ratios(target)
        if not self.rounds.get(target):
            return ""
        if figure.below is not None:
            met = statistics.median(self.rounds[target]) < figure.below
            return f"< {figure.below:g} {figure.unit}: {said(met)}"
        if not ratios:
            return ""
        if figure.at_least is not None:
            return f">= {figure.at_least:g}: {said(statistics.median(ratios) >= figure.at_least)}"
        if figure.at_most is not None:
            return f"<= {figure.at_most:g}: {said(statistics.median(ratios) <= figure.at_most)}"
        return ""


def said(met: bool) -> str:
    return "met" if met else "MISSED"


def short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{short(statistics.median(values))} ({short(min(values))}-{short(max(values))})"


def table(lines: list[Line], targets: list[str]) -> str:
    measured = [target for target in targets if target != FLOOR]
    head = ["", FLOOR]
    for target in measured:
        head += [target, "of the floor", "aim"]
    rows, scenario = [head], ""
    for line in lines:
        if line.scenario != scenario:
            scenario = line.scenario
            rows.append([scenario])
        row = [f"  {line.figure.label}, {line.figure.unit}", spread(line.rounds.get(FLOOR, []))]
        for target in measured:
            row += [spread(line.rounds.get(target, [])), spread(line.ratios(target)), line.verdict(target)]
        rows.append(row)
    widths = [max(len(row[at]) for row in rows if len(row) > 1 and at < len(row)) for at in range(len(head))]
    widths[0] = max(widths[0], *(len(row[0]) for row in rows))
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)  # noqa: B905


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def write_json(path: Path, lines: list[Line], notes: list[str], **more: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    figures = [
        {
            "scenario": line.scenario,
            "figure": line.figure.label,
            "unit": line.figure.unit,
            "rounds": line.rounds,
            "median": {target: statistics.median(values) for target, values in line.rounds.items() if values},
            "ratios_to_floor": {target: line.ratios(target) for target in line.rounds if target != FLOOR},
            "aim": {target: line.verdict(target) for target in line.rounds if target != FLOOR},
            "failed": line.failed,
        }
        for line in lines
    ]
    content = {"machine": machine(), "versions": versions(), **more, "notes": notes, "figures": figures}
    path.write_text(json.dumps(content, indent=1) + "\n")
