"""The table: for a terminal, and as Markdown for the documents."""

from __future__ import annotations

import statistics

from benchmarks.results import Line, Results
from benchmarks.scenario import FLOOR, FORGELINE


def short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{short(statistics.median(values))} ({short(min(values))}..{short(max(values))})"


def verdict(line: Line) -> str:
    met = line.met(FORGELINE)
    if line.aim is None or met is None:
        return ""
    return f"{line.aim.said(line.unit)}: {'met' if met else 'MISSED'}"


def rows(results: Results) -> list[list[str]]:
    """The head, then for each scenario a row with its name alone, and one for each figure."""
    others = [side for side in results.sides if side not in (FLOOR, FORGELINE)]
    found = [["", FLOOR, *others, FORGELINE, "to the floor", "aim"]]
    scenario = ""
    for line in results.lines:
        if line.scenario != scenario:
            scenario = line.scenario
            found.append([f"{scenario} (floor: {line.beside})"])
        cells = [spread(line.values(side)) for side in (FLOOR, *others, FORGELINE)]
        label = f"{line.label}, {line.unit}" if line.unit else line.label
        found.append([f"  {label}", *cells, spread(line.compared(FORGELINE)), verdict(line)])
    return found


def heading(results: Results) -> list[str]:
    machine = results.machine
    most = max((len(line.rounds.get(FLOOR, [])) for line in results.lines), default=0)
    return [
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {results.at}",
        ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        f"up to {most} rounds in turns; median (least..most); {results.took:.0f} s in all",
    ]


def notes(results: Results) -> list[str]:
    return [*(f"failed: {why}" for why in results.failed), *results.doubts]


def as_text(results: Results) -> str:
    table = rows(results)
    widths = [max(len(row[at]) for row in table if len(row) > 1) for at in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in table]
    return "\n".join([*heading(results), "", *lines, *(f"! {note}" for note in notes(results))])


def as_markdown(results: Results) -> str:
    head, *body = rows(results)
    lines = [_markdown(head), _markdown(["---"] * len(head))]
    lines += [_markdown([f"**{row[0]}**"] + [""] * (len(head) - 1) if len(row) == 1 else row) for row in body]
    said = [f"- {note}" for note in notes(results)]
    return "\n".join(["  \n".join(heading(results)), "", *lines, *([""] if said else []), *said])


def disagreements(before: Results, after: Results) -> list[str]:
    """Figures whose spreads in two runs do not even touch; ratios where there are any: the rest is the machine's."""
    found = {(line.scenario, line.label): _telling(line) for line in before.lines}
    said = []
    for line in after.lines:
        old, new = found.get((line.scenario, line.label), []), _telling(line)
        if old and new and (min(new) > max(old) or max(new) < min(old)):
            said.append(f"{line.scenario}: {line.label}: {spread(old)} before, {spread(new)} now")
    return said


def _telling(line: Line) -> list[float]:
    return line.compared(FORGELINE) or line.values(FORGELINE)


def _markdown(cells: list[str]) -> str:
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"
