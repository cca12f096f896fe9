"""All rounds of a scenario, its sides in turns; and what makes a figure doubtful."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.effort import WARM, Effort
from benchmarks.outcome import Outcome
from benchmarks.proc import StartFailed
from benchmarks.results import Line
from benchmarks.scenario import Measure, Scenario
from benchmarks.world import MeasureFailed, World

BUSY = 0.95  # of a core: then the load side may have been the limit
TOO_SHORT = 0.1  # seconds: the kernel counts in hundredths
DISTURBED = 0.25  # of a core, used by processes that have nothing to do with this
SPARE = 8  # disturbed rounds that are measured again, in the whole run

Sides = list[tuple[str, Measure]]


@dataclass
class Runner:
    """`failed` says what has no figure, and why; `doubts` how much of a core it was, at worst."""

    world: World
    effort: Effort
    others: list[str]  # targets beside the floor and Forgeline
    failed: list[str] = field(default_factory=list)
    doubts: dict[str, float] = field(default_factory=dict)
    distributions: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    spare: int = SPARE
    lines: list[Line] = field(default_factory=list)  # also of what was interrupted

    def run(self, scenarios: Iterable[Scenario]) -> None:
        for scenario in scenarios:
            self._measure(scenario)

    def _measure(self, scenario: Scenario) -> None:
        """The order is turned round each time. A side that has failed once is not asked again."""
        print(f"{scenario.name} ...", file=sys.stderr, flush=True)
        self.world.end("forgeline")  # it keeps streams that have ended, and so the last row's are not on this one
        lines = [
            Line(scenario=scenario.name, beside=scenario.beside, label=one.label, unit=one.unit, aim=one.aim, rounds={})
            for one in scenario.figures
        ]
        self.lines += lines
        sides = list(scenario.sides(self.others).items())
        sides = [(side, measure) for side, measure in sides if self._try(scenario, side, measure, WARM) is not None]
        for _ in range(min(scenario.rounds, self.effort.rounds)):
            outcomes = self._round(scenario, sides)
            for line, figure in zip(lines, scenario.figures, strict=True):
                for side, outcome in outcomes.items():
                    line.rounds.setdefault(side, []).append(None if outcome is None else figure.value(outcome))
            sides = [(side, measure) for side, measure in reversed(sides) if outcomes[side] is not None]

    def _round(self, scenario: Scenario, sides: Sides) -> dict[str, Outcome | None]:
        while True:
            outcomes = {side: self._try(scenario, side, measure, self.effort) for side, measure in sides}
            measured = {side: outcome for side, outcome in outcomes.items() if outcome is not None}
            most = max((outcome.others_busy for outcome in measured.values()), default=0)
            if most <= DISTURBED or not self.spare:
                break
            self.spare -= 1
        if most > DISTURBED:
            self._doubt(f"{scenario.name}: other processes disturbed", most)
        for side, outcome in measured.items():
            self._watch(scenario, side, outcome)
        return outcomes

    def _try(self, scenario: Scenario, side: str, measure: Measure, effort: Effort) -> Outcome | None:
        try:
            return measure(self.world, effort)
        except (MeasureFailed, StartFailed, OSError) as error:
            self.failed.append(f"{side}, {scenario.name}: {error}")
            print(self.failed[-1], file=sys.stderr, flush=True)
            return None

    def _watch(self, scenario: Scenario, side: str, outcome: Outcome) -> None:
        """Keeps the latencies. Notes a load side at its limit while what is measured has time left."""
        self.distributions.setdefault(scenario.name, {})[side] = outcome.whole_ms
        load_side = outcome.client_busy + outcome.upstream_busy
        if load_side > BUSY and outcome.cpu < BUSY * outcome.seconds and outcome.seconds > TOO_SHORT:
            self._doubt(f"{side}, {scenario.name}: the load side may have been the limit", load_side)

    def _doubt(self, what: str, share: float) -> None:
        self.doubts[what] = max(share, self.doubts.get(what, 0))
