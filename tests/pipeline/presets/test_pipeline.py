"""Validation of pipeline.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import plugins
from pipeline.presets.pipeline import (
    DEFAULT_STAGES,
    PipelinePreset,
    StageSpec,
    UnusablePipeline,
    find_order_warnings,
)
from pipeline.presets.schema import SchemaError
from pipeline.presets.store import PresetStore

KIND = plugins.load_plugins().pipeline_presets
SHIPPED_PRESETS = Path(__file__).parents[3] / "presets"


def parse_stages(*stages: Any) -> tuple[StageSpec, ...]:
    return KIND.parse({"stages": list(stages)}).stages


def test_stages_keep_their_order_and_options() -> None:
    stages = parse_stages({"decode_frames": {"max_pixels": 5}}, "route_model", "invoke", "normalize_envelope")
    assert [stage.name for stage in stages] == ["decode_frames", "route_model", "invoke", "normalize_envelope"]
    assert [stage.options for stage in stages] == [{"max_pixels": 5}, {}, {}, {}]


@pytest.mark.parametrize(
    ("stages", "path", "problem"),
    [
        (["route_model", "normalize_envelope"], ("stages",), "exactly one of the stages has to be invoke"),
        (["invoke", "invoke", "normalize_envelope"], ("stages",), "exactly one of the stages has to be invoke"),
        (["invoke"], ("stages",), "normalize_envelope has to stand there once, as the last stage"),
        (["invoke", "normalize_envelope", "limit"], ("stages",), "normalize_envelope has to stand there once"),
        (["normalize_envelope", "invoke", "normalize_envelope"], ("stages",), "normalize_envelope has to stand there"),
        ([], ("stages",), "exactly one of the stages has to be invoke"),
        (["route_model", "shout"], ("stages", 1), "nobody provides a stage 'shout' (there are circuit_breaker,"),
        (["limit", "invoke", "limit", "normalize_envelope"], ("stages", 2), "limit stands here a second time"),
        (["invoke", "route_model", "normalize_envelope"], ("stages",), "route_model has to stand before invoke"),
        ([{"limit": {"speed": 1}}], ("stages", 0, "limit", "speed"), "unknown field"),
        (
            [{"decode_frames": {"max_pixels": 0}}],
            ("stages", 0, "decode_frames", "max_pixels"),
            "expected an integer >= 1",
        ),
    ],
)
def test_pipeline_that_can_never_answer_is_unusable(stages: list[Any], path: Any, problem: str) -> None:
    with pytest.raises(UnusablePipeline) as caught:
        parse_stages(*stages)
    assert caught.value.path == path
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize("stages", [[3], [{}], [{"limit": {}, "invoke": {}}], [{"limit": None}], "invoke"])
def test_stage_item_must_be_a_name_or_one_name_with_options(stages: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        KIND.parse({"stages": stages})
    assert caught.value.path[:1] == ("stages",)
    assert not isinstance(caught.value, UnusablePipeline)


@pytest.mark.parametrize(
    ("stages", "index"),
    [
        (["limit", "circuit_breaker", "retry"], 1),  # the order of 0.1.0
        (["retry", "limit", "decode_frames", "circuit_breaker"], 3),
        (["circuit_breaker", "retry"], 1),
    ],
)
def test_outdated_stage_order_is_a_warning(stages: list[str], index: int) -> None:
    preset = PipelinePreset(parse_stages(*stages, "invoke", "normalize_envelope"))
    (warning,) = find_order_warnings(preset)
    assert warning.path == ("stages", index)
    assert f"{stages[index]} should stand before " in warning.problem


@pytest.mark.parametrize("stages", [DEFAULT_STAGES[:-2], ["retry", "limit"], ["limit"], []])
def test_stage_order_since_0_2_0_has_no_warning(stages: Sequence[str]) -> None:
    assert find_order_warnings(PipelinePreset(parse_stages(*stages, "invoke", "normalize_envelope"))) == []


def test_shipped_pipeline_is_the_default() -> None:
    store = PresetStore([SHIPPED_PRESETS], [KIND])
    store.reload()
    names = tuple(stage.name for stage in store.snapshot.get(KIND)["pipeline"].stages)
    assert names == DEFAULT_STAGES
    assert store.snapshot.warnings == ()
