"""The runner: alternating sides, a failed side, repeated rounds."""

from __future__ import annotations

from typing import cast

import pytest

from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.harness import Harness, MeasureError
from benchmarks.outcome import Outcome
from benchmarks.runner import Runner
from benchmarks.scenario import FLOOR, FORGELINE, Measure, Scenario


class NoHarness:
    """A harness without targets."""

    def stop(self, name: str) -> None:
        pass


NO_HARNESS = cast(Harness, NoHarness())


class Sides:
    """Measures that record their calls and return given outcomes; None is a failure."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def measure(self, name: str, *outcomes: Outcome | None) -> Measure:
        remaining = iter(outcomes)

        def measure(harness: Harness, effort: Effort) -> Outcome:
            self.called.append(name)
            outcome = next(remaining)
            if outcome is None:
                raise MeasureError("no answer")
            return outcome

        return measure


def outcome(responses: float, other_busy: float = 0) -> Outcome:
    return Outcome(seconds=1, responses=responses, other_busy=other_busy)


def make_runner(rounds: int) -> Runner:
    return Runner(NO_HARNESS, Effort(rounds), other_targets=[])


def make_scenario(floor: Measure, forgeline: Measure) -> Scenario:
    return Scenario(
        "a scenario", "a floor", (Figure("answers", "", lambda outcome: outcome.responses),), floor, forgeline
    )


def test_runner_skips_warm_up_round_and_alternates_sides() -> None:
    sides = Sides()
    floor = sides.measure(FLOOR, outcome(9), outcome(1), outcome(2))
    forgeline = sides.measure(FORGELINE, outcome(9), outcome(3), outcome(4))
    runner = make_runner(rounds=2)
    runner.run([make_scenario(floor, forgeline)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [1, 2], FORGELINE: [3, 4]}
    assert sides.called == [FLOOR, FORGELINE] * 2 + [FORGELINE, FLOOR]


def test_runner_failed_side_is_reported_and_left_out() -> None:
    sides, runner = Sides(), make_runner(rounds=3)
    floor = sides.measure(FLOOR, outcome(9), outcome(1), outcome(1), outcome(1))
    forgeline = sides.measure(FORGELINE, outcome(9), outcome(2), None)
    runner.run([make_scenario(floor, forgeline)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [1, 1, 1], FORGELINE: [2, None]}
    assert line.compare_to_floor(FORGELINE) == [2]
    assert runner.failures == ["forgeline, a scenario: no answer"]


def test_runner_disturbed_round_repeats_both_sides() -> None:
    sides, runner = Sides(), make_runner(rounds=1)
    floor = sides.measure(FLOOR, outcome(9), outcome(1, other_busy=0.9), outcome(2))
    forgeline = sides.measure(FORGELINE, outcome(9), outcome(3), outcome(4))
    runner.run([make_scenario(floor, forgeline)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [2], FORGELINE: [4]}
    assert runner.warnings == {}


def test_runner_disturbed_last_repeat_counts_with_warning() -> None:
    sides, runner = Sides(), make_runner(rounds=1)
    runner.repeats_left = 1
    floor = sides.measure(FLOOR, outcome(9), outcome(1, other_busy=0.9), outcome(2, other_busy=0.5))
    forgeline = sides.measure(FORGELINE, outcome(9), outcome(3), outcome(4))
    runner.run([make_scenario(floor, forgeline)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [2], FORGELINE: [4]}
    assert runner.warnings == {"a scenario: other processes disturbed": 0.5}


def test_runner_interrupt_keeps_measured_rounds() -> None:
    sides, runner = Sides(), make_runner(rounds=2)

    def interrupted(harness: Harness, effort: Effort) -> Outcome:
        sides.called.append(FORGELINE)
        if sides.called.count(FORGELINE) == 3:
            raise KeyboardInterrupt
        return outcome(5)

    floor = sides.measure(FLOOR, outcome(9), outcome(1), outcome(2))
    with pytest.raises(KeyboardInterrupt):
        runner.run([make_scenario(floor, interrupted)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [1], FORGELINE: [5]}
