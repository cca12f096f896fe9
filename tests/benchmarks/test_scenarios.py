"""The benchmark itself: each scenario's sides answer rightly, in a round of a fraction of a second."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator

import pytest

from benchmarks.effort import WARM
from benchmarks.measures.asking import Ask
from benchmarks.scenario import Scenario
from benchmarks.scenarios import PLAIN, QUESTIONS, SCENARIOS
from benchmarks.world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(QUESTIONS) as world:
        yield world


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_both_sides_of_a_scenario_answer_rightly(scenario: Scenario, world: World) -> None:
    for measure in (scenario.floor, scenario.forgeline):
        outcome = measure(world, WARM)  # a wrong answer raises
        assert outcome.seconds > 0
        assert all(math.isfinite(figure.value(outcome)) for figure in scenario.figures)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_passes_requests_on(world: World) -> None:
    assert Ask("nginx", PLAIN, clients=2, seconds=0.1)(world, WARM).answers > 2
