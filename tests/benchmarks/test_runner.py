"""Rounds: sides in turns, a failure that costs only its own side, a disturbed round that is measured again."""

from __future__ import annotations

from typing import cast

import pytest

from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.outcome import Outcome
from benchmarks.runner import Runner
from benchmarks.scenario import FLOOR, FORGELINE, Measure, Scenario
from benchmarks.world import MeasureFailed, World


class Empty:
    """A world of which measures ask nothing."""

    def end(self, name: str) -> None:
        pass


NO_WORLD = cast(World, Empty())


class Sides:
    """Measures that note who was asked, and give what they are told to; nothing is a failure."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def side(self, name: str, *outcomes: Outcome | None) -> Measure:
        coming = iter(outcomes)

        def measure(world: World, effort: Effort) -> Outcome:
            self.asked.append(name)
            outcome = next(coming)
            if outcome is None:
                raise MeasureFailed("no answer")
            return outcome

        return measure


def outcome(answers: float, others_busy: float = 0) -> Outcome:
    return Outcome(seconds=1, answers=answers, others_busy=others_busy)


def a_runner(rounds: int) -> Runner:
    return Runner(NO_WORLD, Effort(rounds), others=[])


def a_scenario(floor: Measure, forgeline: Measure) -> Scenario:
    return Scenario("a scenario", "a floor", (Figure("answers", "", lambda one: one.answers),), floor, forgeline)


def test_the_first_round_does_not_count_and_the_order_turns_round() -> None:
    sides = Sides()
    floor = sides.side(FLOOR, outcome(9), outcome(1), outcome(2))
    mine = sides.side(FORGELINE, outcome(9), outcome(3), outcome(4))
    runner = a_runner(rounds=2)
    runner.run([a_scenario(floor, mine)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [1, 2], FORGELINE: [3, 4]}
    assert sides.asked == [FLOOR, FORGELINE] * 2 + [FORGELINE, FLOOR]


def test_a_side_that_fails_is_told_and_not_asked_again() -> None:
    sides, runner = Sides(), a_runner(rounds=3)
    floor = sides.side(FLOOR, outcome(9), outcome(1), outcome(1), outcome(1))
    mine = sides.side(FORGELINE, outcome(9), outcome(2), None)
    runner.run([a_scenario(floor, mine)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [1, 1, 1], FORGELINE: [2, None]}
    assert line.compared(FORGELINE) == [2]
    assert runner.failed == ["forgeline, a scenario: no answer"]


def test_a_disturbed_round_is_measured_again_for_both_sides() -> None:
    sides, runner = Sides(), a_runner(rounds=1)
    floor = sides.side(FLOOR, outcome(9), outcome(1, others_busy=0.9), outcome(2))
    mine = sides.side(FORGELINE, outcome(9), outcome(3), outcome(4))
    runner.run([a_scenario(floor, mine)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [2], FORGELINE: [4]}
    assert runner.doubts == {}


def test_where_every_round_is_disturbed_the_last_one_counts_and_is_doubted() -> None:
    sides, runner = Sides(), a_runner(rounds=1)
    runner.spare = 1
    floor = sides.side(FLOOR, outcome(9), outcome(1, others_busy=0.9), outcome(2, others_busy=0.5))
    mine = sides.side(FORGELINE, outcome(9), outcome(3), outcome(4))
    runner.run([a_scenario(floor, mine)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [2], FORGELINE: [4]}
    assert runner.doubts == {"a scenario: other processes disturbed": 0.5}


def test_what_was_measured_before_an_interruption_is_kept() -> None:
    sides, runner = Sides(), a_runner(rounds=2)

    def interrupted(world: World, effort: Effort) -> Outcome:
        sides.asked.append(FORGELINE)
        if sides.asked.count(FORGELINE) == 3:
            raise KeyboardInterrupt
        return outcome(5)

    floor = sides.side(FLOOR, outcome(9), outcome(1), outcome(2))
    with pytest.raises(KeyboardInterrupt):
        runner.run([a_scenario(floor, interrupted)])
    (line,) = runner.lines
    assert line.rounds == {FLOOR: [1], FORGELINE: [5]}
