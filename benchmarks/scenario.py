"""A scenario, a row of the table: a measure of the floor, one of Forgeline, and figures of their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.harness import Harness
from benchmarks.measures.http_load import HttpLoad
from benchmarks.outcome import Outcome
from benchmarks.targets import RequestSpec

FLOOR, FORGELINE = "floor", "forgeline"


class Measure(Protocol):
    """Runs one round of one side. Raises MeasureError, StartError."""

    def __call__(self, harness: Harness, effort: Effort) -> Outcome: ...


@dataclass(frozen=True)
class Scenario:
    """`floor` is the reference that Forgeline is compared to, `floor_label` its description."""

    name: str
    floor_label: str
    figures: tuple[Figure, ...]
    floor: Measure
    forgeline: Measure
    measure_for: Callable[[str], Measure] | None = None  # for any target that takes OpenAI requests
    rounds: int = 4  # at most

    def sides(self, other_targets: list[str]) -> dict[str, Measure]:
        """The measures by column of the table."""
        others = {name: self.measure_for(name) for name in other_targets} if self.measure_for else {}
        return {FLOOR: self.floor, **others, FORGELINE: self.forgeline}


def request_scenario(name: str, spec: RequestSpec, *figures: Figure, rounds: int = 4, **load: Any) -> Scenario:
    """A scenario of HTTP requests, which every target supports. `load`: the load arguments of HttpLoad."""

    def measure_for(target: str) -> HttpLoad:
        return HttpLoad(target, spec, **load)

    return Scenario(
        name, "bare passthrough", figures, measure_for("passthrough"), measure_for("forgeline"), measure_for, rounds
    )
