"""The runner: all rounds of each scenario, alternating sides, with warnings where a figure is unreliable."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.effort import WARM_UP, Effort
from benchmarks.harness import Harness, MeasureError
from benchmarks.outcome import Outcome
from benchmarks.processes import StartError
from benchmarks.results import Line
from benchmarks.scenario import Measure, Scenario

MAX_LOAD_SHARE = 0.95  # of a core, by client and upstream: more may have been the limit
MIN_SECONDS = 0.1  # of a round: the kernel counts CPU time in hundredths of a second
MAX_DISTURBANCE = 0.25  # of a core, by unrelated processes
MAX_REPEATS = 8  # of disturbed rounds, in the whole run

Sides = list[tuple[str, Measure]]


@dataclass
class Runner:
    """`failures`: why a side has no figure. `warnings`: by text, the largest share of a core."""

    harness: Harness
    effort: Effort
    other_targets: list[str]  # beside the floor and Forgeline
    failures: list[str] = field(default_factory=list)
    warnings: dict[str, float] = field(default_factory=dict)
    distributions: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    repeats_left: int = MAX_REPEATS
    lines: list[Line] = field(default_factory=list)  # also of an interrupted scenario

    def run(self, scenarios: Iterable[Scenario]) -> None:
        for scenario in scenarios:
            self._run_scenario(scenario)

    def _run_scenario(self, scenario: Scenario) -> None:
        """Alternate the order of sides by round. A side that has failed once is left out."""
        print(f"{scenario.name} ...", file=sys.stderr, flush=True)
        self.harness.stop("forgeline")  # its memory holds ended streams of the previous scenario
        lines = [
            Line(
                scenario=scenario.name,
                floor_label=scenario.floor_label,
                label=figure.label,
                unit=figure.unit,
                aim=figure.aim,
                rounds={},
            )
            for figure in scenario.figures
        ]
        self.lines += lines
        sides = [
            (side, measure)
            for side, measure in scenario.sides(self.other_targets).items()
            if self._try_measure(scenario, side, measure, WARM_UP) is not None
        ]
        for _ in range(min(scenario.rounds, self.effort.rounds)):
            outcomes = self._run_round(scenario, sides)
            for line, figure in zip(lines, scenario.figures, strict=True):
                for side, outcome in outcomes.items():
                    line.rounds.setdefault(side, []).append(None if outcome is None else figure.value(outcome))
            sides = [(side, measure) for side, measure in reversed(sides) if outcomes[side] is not None]

    def _run_round(self, scenario: Scenario, sides: Sides) -> dict[str, Outcome | None]:
        while True:
            outcomes = {side: self._try_measure(scenario, side, measure, self.effort) for side, measure in sides}
            measured = {side: outcome for side, outcome in outcomes.items() if outcome is not None}
            disturbance = max((outcome.other_busy for outcome in measured.values()), default=0)
            if disturbance <= MAX_DISTURBANCE or not self.repeats_left:
                break
            self.repeats_left -= 1
        if disturbance > MAX_DISTURBANCE:
            self._warn(f"{scenario.name}: other processes disturbed", disturbance)
        for side, outcome in measured.items():
            self._record(scenario, side, outcome)
        return outcomes

    def _try_measure(self, scenario: Scenario, side: str, measure: Measure, effort: Effort) -> Outcome | None:
        try:
            return measure(self.harness, effort)
        except (MeasureError, StartError, OSError) as error:
            self.failures.append(f"{side}, {scenario.name}: {error}")
            print(self.failures[-1], file=sys.stderr, flush=True)
            return None

    def _record(self, scenario: Scenario, side: str, outcome: Outcome) -> None:
        """Store the latencies. Warn if the load side was at its limit and the target was not."""
        self.distributions.setdefault(scenario.name, {})[side] = outcome.latency_ms
        load_share = outcome.client_busy + outcome.upstream_busy
        has_time_left = outcome.cpu_seconds < MAX_LOAD_SHARE * outcome.seconds
        if load_share > MAX_LOAD_SHARE and has_time_left and outcome.seconds > MIN_SECONDS:
            self._warn(f"{side}, {scenario.name}: the load side may have been the limit", load_share)

    def _warn(self, warning: str, share: float) -> None:
        self.warnings[warning] = max(share, self.warnings.get(warning, 0))
