"""The rules of model presets and of pipeline.yaml, and the presets that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import plugins
from pipeline.presets import (
    DEFAULT_STAGES,
    MODELS,
    ModelPreset,
    StageSpec,
    UnusablePipeline,
    parse_pipeline,
    pipeline_kind,
)
from pipeline.providers.emd import how_to_deploy
from pipeline.schema import SchemaError, check
from pipeline.store import PresetStore, Snapshot

SHIPPED = Path(__file__).parents[2] / "presets"


def read_pipeline(*stages: Any) -> tuple[StageSpec, ...]:
    return parse_pipeline({"stages": list(stages)}, plugins.load().check_stage).stages


@pytest.fixture(scope="module")
def shipped() -> Snapshot:
    store = PresetStore([SHIPPED], [MODELS, pipeline_kind(plugins.load().check_stage)])
    store.reload()
    return store.snapshot


def test_the_stages_keep_their_order_and_options() -> None:
    stages = read_pipeline({"decode_frames": {"max_pixels": 5}}, "route_model", "invoke", "normalize_envelope")
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
        ([{"limit": {"speed": 1}}], ("stages", 0), "speed: unknown field"),
        ([{"decode_frames": {"max_pixels": 0}}], ("stages", 0), "max_pixels: expected an integer >= 1"),
    ],
)
def test_a_pipeline_that_can_never_answer_is_unusable(stages: list[Any], path: Any, problem: str) -> None:
    with pytest.raises(UnusablePipeline) as caught:
        read_pipeline(*stages)
    assert caught.value.path == path
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize("stages", [[3], [{}], [{"limit": {}, "invoke": {}}], [{"limit": None}], "invoke"])
def test_an_item_is_a_name_or_one_name_with_its_options(stages: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_pipeline({"stages": stages}, plugins.load().check_stage)
    assert caught.value.path[:1] == ("stages",)
    assert not isinstance(caught.value, UnusablePipeline)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "provider: this field is required"),
        ({"capabilities": ["smell"]}, "capabilities[0]: expected one of 'image', 'stream', 'text', 'video'"),
        ({"limits": {"max_tokens": 0}}, "limits.max_tokens: expected an integer >= 1"),
        ({"limits": {"temperature": 2.5}}, "limits.temperature: expected a number <= 2.0"),
        ({"timeouts": {"first_token": 0}}, "timeouts.first_token: expected a number > 0.0"),
        ({"timeouts": {"connect": float("nan")}}, "timeouts.connect: expected a number > 0.0"),
        ({"concurrency": {"queue": -1}}, "concurrency.queue: expected an integer >= 0"),
        ({"refuses": ["max_tokens"]}, "refuses[0]: expected one of 'stop', 'temperature', 'top_p'"),
        ({"api_key": "secret"}, "api_key: unknown field (known are provider, model, base_url, api_key_env,"),
    ],
)
def test_a_model_preset_is_held_against_its_schema(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check(keys if not keys else {"provider": "p", "model": "m"} | keys, ModelPreset)
    assert str(caught.value).startswith(sentence)


def test_all_shipped_presets_load_without_a_fault(shipped: Snapshot) -> None:
    assert shipped.faults == ()
    assert set(shipped.of(MODELS)) >= {
        *("claude4", "nova", "smollm2"),
        *("qwen2-vl-7b", "qwen2.5-vl-32b", "gemma-3-4b", "ui-tars-1.5-7b"),
    }


def test_the_shipped_pipeline_is_the_default_one(shipped: Snapshot) -> None:
    names = tuple(stage.name for stage in shipped.presets["pipeline"]["pipeline"].stages)
    assert names == DEFAULT_STAGES


@pytest.mark.parametrize(
    ("key", "model", "instance", "frames"),
    [
        ("qwen2-vl-7b", "Qwen2-VL-7B-Instruct", "g5.12xlarge", 2),
        ("qwen2.5-vl-32b", "Qwen2.5-VL-32B-Instruct", "g5.48xlarge", 20),
        ("gemma-3-4b", "gemma-3-4b-it", "g5.2xlarge", 1),
        ("ui-tars-1.5-7b", "UI-TARS-1.5-7B", "g5.12xlarge", 1),
    ],
)
def test_each_emd_model_has_its_own_command(
    shipped: Snapshot, key: str, model: str, instance: str, frames: int
) -> None:
    preset = shipped.of(MODELS)[key]
    assert (preset.provider, preset.limits.frames) == ("emd", frames)
    assert how_to_deploy(preset) == (
        "EMD model not deployed. Please deploy using: emd deploy"
        f" --model-id {model} --model-tag dev --instance-type {instance}"
        " --engine-type vllm --service-type sagemaker_realtime"
    )


@pytest.mark.parametrize(("key", "takes_video"), [("claude4", False), ("nova", True)])
def test_the_bedrock_models_take_pictures_and_a_temperature_up_to_1(
    shipped: Snapshot, key: str, takes_video: bool
) -> None:
    preset = shipped.of(MODELS)[key]
    assert preset.provider == "bedrock"
    assert {"text", "image", "stream"} <= set(preset.capabilities)
    assert ("video" in preset.capabilities) == takes_video
    assert preset.limits.temperature == 1.0


def test_the_embedded_model_needs_no_account(shipped: Snapshot) -> None:
    preset = shipped.of(MODELS)["smollm2"]
    assert (preset.provider, preset.model, preset.api_key_env) == ("local", "SmolLM2-135M-Instruct", None)
