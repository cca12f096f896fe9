"""Validation of model presets, and the presets that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.plugins import load_plugins
from pipeline.presets.schema import SchemaError
from pipeline.presets.store import PresetSnapshot, PresetStore
from pipeline.providers.emd.provider import not_deployed_message

PLUGINS = load_plugins()
SHIPPED_PRESETS = Path(__file__).parents[3] / "presets"


@pytest.fixture(scope="module")
def shipped() -> PresetSnapshot:
    store = PresetStore([SHIPPED_PRESETS], [PLUGINS.model_presets])
    store.reload()
    return store.snapshot


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "provider: this field is required"),
        ({"capabilities": ["smell"]}, "capabilities[0]: expected one of 'image', 'stream', 'text', 'video'"),
        ({"limits": {"max_tokens": 0}}, "limits.max_tokens: expected an integer >= 1"),
        ({"limits": {"temperature": 2.5}}, "limits.temperature: expected a number <= 2.0"),
        ({"timeouts": {"first_token": 0}}, "timeouts.first_token: expected a number > 0.0"),
        ({"timeouts": {"connect": float("nan")}}, "timeouts.connect: expected a number > 0.0"),
        ({"concurrency": {"queue": -1}}, "concurrency.queue: expected an integer >= 0"),
        ({"refuses": ["max_tokens"]}, "refuses[0]: expected one of 'stop', 'temperature', 'top_p'"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "base_url: unknown field (known are provider, model, capabilities,"),
        ({3: "x"}, "in a key: expected a string, got an integer"),
        ({"api_key": "secret"}, "api_key: unknown field (known are provider, model, capabilities, limits, timeouts, "),
    ],
)
def test_invalid_model_preset_is_rejected(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        PLUGINS.parse_model_preset(keys if not keys else {"provider": "scripted", "model": "m"} | keys)
    assert str(caught.value).startswith(message)


def test_shipped_presets_have_no_errors(shipped: PresetSnapshot) -> None:
    assert shipped.errors == ()
    assert set(shipped.get(PLUGINS.model_presets)) >= {
        *("claude4", "nova", "smollm2"),
        *("qwen2-vl-7b", "qwen2.5-vl-32b", "gemma-3-4b", "ui-tars-1.5-7b"),
    }


@pytest.mark.parametrize(
    ("name", "model", "instance", "frames"),
    [
        ("qwen2-vl-7b", "Qwen2-VL-7B-Instruct", "g5.12xlarge", 2),
        ("qwen2.5-vl-32b", "Qwen2.5-VL-32B-Instruct", "g5.48xlarge", 20),
        ("gemma-3-4b", "gemma-3-4b-it", "g5.2xlarge", 1),
        ("ui-tars-1.5-7b", "UI-TARS-1.5-7B", "g5.12xlarge", 1),
    ],
)
def test_emd_presets_have_their_deploy_commands(
    shipped: PresetSnapshot, name: str, model: str, instance: str, frames: int
) -> None:
    preset = shipped.get(PLUGINS.model_presets)[name]
    assert (preset.provider, preset.limits.frames) == ("emd", frames)
    assert not_deployed_message(preset) == (
        "EMD model not deployed. Please deploy using: emd deploy"
        f" --model-id {model} --model-tag dev --instance-type {instance}"
        " --engine-type vllm --service-type sagemaker_realtime"
    )


@pytest.mark.parametrize(("name", "has_video"), [("claude4", False), ("nova", True)])
def test_bedrock_presets_have_images_and_a_maximum_temperature_of_1(
    shipped: PresetSnapshot, name: str, has_video: bool
) -> None:
    preset = shipped.get(PLUGINS.model_presets)[name]
    assert preset.provider == "bedrock"
    assert {"text", "image", "stream"} <= set(preset.capabilities)
    assert ("video" in preset.capabilities) == has_video
    assert preset.limits.temperature == 1.0


def test_embedded_model_preset_needs_no_key(shipped: PresetSnapshot) -> None:
    preset = shipped.get(PLUGINS.model_presets)["smollm2"]
    assert (preset.provider, preset.model) == ("local", "SmolLM2-135M-Instruct")
