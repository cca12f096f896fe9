"""route_model: the target is the preset of the requested model, and the parameters fit that model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, Unavailable, UnknownModel
from pipeline.messages import EventStream, Inference, Parameters
from pipeline.stage import Context
from tests.async_tests import async_test
from tests.pipeline.factories import FakeProvider, create_stage, make_inference, play_steps


async def route(inference: Inference) -> Inference:
    """The inference with which the stage proceeds."""
    inferences: list[Inference] = []

    async def proceed(inference: Inference) -> EventStream:
        inferences.append(inference)
        return EventStream(play_steps([]))

    await create_stage("route_model", {}, Context({"fake": FakeProvider()}))(
        replace(inference, selected_target=None), proceed
    )
    return inferences[0]


@async_test
async def test_target_is_the_preset_of_the_requested_model() -> None:
    inference = make_inference(model="m-1")
    target = (await route(inference)).target
    assert (target.model, target.preset) == ("m", inference.models["m"])


@async_test
async def test_unknown_model_is_rejected() -> None:
    with pytest.raises(UnknownModel, match="'other'"):
        await route(replace(make_inference(), model="other"))


@async_test
async def test_model_of_a_missing_provider_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="needs the provider 'bedrock', which is not installed here"):
        await route(make_inference(provider="bedrock"))


@pytest.mark.parametrize(
    ("parameters", "keys", "expected"),
    [
        (Parameters(max_tokens=50), {}, Parameters(max_tokens=50)),
        (Parameters(max_tokens=50), {"limits": {"max_tokens": 9}}, Parameters(max_tokens=9)),
        (Parameters(temperature=0.7), {"refuses": ["temperature"]}, Parameters(temperature=None)),
        (Parameters(top_p=0.7, stop=("x",)), {"refuses": ["top_p", "stop"]}, Parameters()),
        (Parameters(temperature=1.0), {"limits": {"temperature": 1}}, Parameters(temperature=1.0)),
    ],
)
@async_test
async def test_parameters_are_adapted_to_the_preset(
    parameters: Parameters, keys: dict[str, Any], expected: Parameters
) -> None:
    inference = await route(make_inference(parameters=parameters, **keys))
    assert inference.parameters == expected
    assert inference.request.parameters == parameters


@async_test
async def test_temperature_above_the_maximum_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match=r"temperature: the model 'm' takes at most 1, not 1\.5"):
        await route(make_inference(parameters=Parameters(temperature=1.5), limits={"temperature": 1}))
    with pytest.raises(InvalidRequest, match="temperature"):
        await route(
            make_inference(parameters=Parameters(temperature=1.5), limits={"temperature": 1}, refuses=["temperature"])
        )
