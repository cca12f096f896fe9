"""The scenarios: both sides of each give correct responses in a short round."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator

import pytest

from benchmarks.effort import WARM_UP
from benchmarks.harness import Harness
from benchmarks.measures.http_load import HttpLoad
from benchmarks.scenario import Scenario
from benchmarks.scenarios import PLAIN, REQUEST_SPECS, SCENARIOS


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness(REQUEST_SPECS) as harness:
        yield harness


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_both_sides_give_finite_figures(scenario: Scenario, harness: Harness) -> None:
    for measure in (scenario.floor, scenario.forgeline):
        outcome = measure(harness, WARM_UP)  # a wrong response raises
        assert outcome.seconds > 0
        assert all(math.isfinite(figure.value(outcome)) for figure in scenario.figures)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_target_forwards_requests(harness: Harness) -> None:
    assert HttpLoad("nginx", PLAIN, clients=2, seconds=0.1)(harness, WARM_UP).responses > 2
