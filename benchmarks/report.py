"""The report of a run: a table for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

import statistics

from benchmarks.results import Line, Results
from benchmarks.scenario import FLOOR, FORGELINE


def format_value(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def format_spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{format_value(statistics.median(values))} ({format_value(min(values))}..{format_value(max(values))})"


def format_verdict(line: Line) -> str:
    is_met = line.is_met(FORGELINE)
    if line.aim is None or is_met is None:
        return ""
    return f"{line.aim.describe(line.unit)}: {'met' if is_met else 'MISSED'}"


def rows(results: Results) -> list[list[str]]:
    """The header, then for each scenario a row with its name, and one for each figure."""
    others = [side for side in results.sides if side not in (FLOOR, FORGELINE)]
    table = [["", FLOOR, *others, FORGELINE, "to the floor", "aim"]]
    scenario = ""
    for line in results.lines:
        if line.scenario != scenario:
            scenario = line.scenario
            table.append([f"{scenario} (floor: {line.floor_label})"])
        cells = [format_spread(line.values(side)) for side in (FLOOR, *others, FORGELINE)]
        label = f"{line.label}, {line.unit}" if line.unit else line.label
        table.append([f"  {label}", *cells, format_spread(line.compare_to_floor(FORGELINE)), format_verdict(line)])
    return table


def heading(results: Results) -> list[str]:
    machine = results.machine
    round_count = max((len(line.rounds.get(FLOOR, [])) for line in results.lines), default=0)
    return [
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {results.finished_at}",
        ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        f"up to {round_count} rounds in turns; median (least..most); {results.duration:.0f} s in all",
    ]


def notes(results: Results) -> list[str]:
    return [*(f"failed: {failure}" for failure in results.failures), *results.warnings]


def as_text(results: Results) -> str:
    table = rows(results)
    widths = [max(len(row[at]) for row in table if len(row) > 1) for at in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in table]
    return "\n".join([*heading(results), "", *lines, *(f"! {note}" for note in notes(results))])


def as_markdown(results: Results) -> str:
    head, *body = rows(results)
    lines = [_markdown_row(head), _markdown_row(["---"] * len(head))]
    lines += [_markdown_row([f"**{row[0]}**"] + [""] * (len(head) - 1) if len(row) == 1 else row) for row in body]
    note_lines = [f"- {note}" for note in notes(results)]
    return "\n".join(["  \n".join(heading(results)), "", *lines, *([""] if note_lines else []), *note_lines])


def disagreements(before: Results, after: Results) -> list[str]:
    """Figures whose spreads in two runs do not overlap. Ratios where there are any: they depend less on the machine."""
    old_values = {(line.scenario, line.label): _comparable_values(line) for line in before.lines}
    messages = []
    for line in after.lines:
        old, new = old_values.get((line.scenario, line.label), []), _comparable_values(line)
        if old and new and (min(new) > max(old) or max(new) < min(old)):
            messages.append(f"{line.scenario}: {line.label}: {format_spread(old)} before, {format_spread(new)} now")
    return messages


def _comparable_values(line: Line) -> list[float]:
    return line.compare_to_floor(FORGELINE) or line.values(FORGELINE)


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"
