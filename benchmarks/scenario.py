"""What a row of the table is: two sides, each with its measure, and the figures drawn from what they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.measures.asking import Ask
from benchmarks.outcome import Outcome
from benchmarks.targets import Question
from benchmarks.world import World

FLOOR, FORGELINE = "floor", "forgeline"


class Measure(Protocol):
    """One round of one side. Raises MeasureFailed, StartFailed."""

    def __call__(self, world: World, effort: Effort) -> Outcome: ...


@dataclass(frozen=True)
class Scenario:
    """`floor` is what Forgeline is held against, `beside` says what that is."""

    name: str
    beside: str
    figures: tuple[Figure, ...]
    floor: Measure
    forgeline: Measure
    others: Callable[[str], Measure] | None = None  # the same of any target that passes on OpenAI's requests
    rounds: int = 4  # at most

    def sides(self, others: list[str]) -> dict[str, Measure]:
        """By column."""
        further = {name: self.others(name) for name in others} if self.others else {}
        return {FLOOR: self.floor, **further, FORGELINE: self.forgeline}


def asked(name: str, question: Question, *figures: Figure, rounds: int = 4, **load: Any) -> Scenario:
    """A scenario that every target can take part in. `load` is that of Ask."""

    def ask(target: str) -> Ask:
        return Ask(target, question, **load)

    return Scenario(name, "bare passthrough", figures, ask("passthrough"), ask("forgeline"), ask, rounds)
