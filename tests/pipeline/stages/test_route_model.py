"""route_model: a name becomes a preset, and the parameters those that the model takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, Unavailable, UnknownModel
from pipeline.messages import Events, Inference, Parameters
from pipeline.stage import Context
from pipeline.stages.route_model import create
from tests.aio import asynchronous
from tests.pipeline.making import Counted, asked, play


async def routed(inference: Inference) -> Inference:
    """What the stage hands on."""
    got: list[Inference] = []

    async def following(inference: Inference) -> Events:
        got.append(inference)
        return Events(play([]))

    await create({}, Context({"counted": Counted()}))(replace(inference, routed=None), following)
    return got[0]


@asynchronous
async def test_the_route_is_the_preset_of_that_name() -> None:
    inference = asked(model="m-1")
    route = (await routed(inference)).route
    assert (route.model, route.preset) == ("m", inference.models["m"])


@asynchronous
async def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownModel, match="'other'"):
        await routed(replace(asked(), model="other"))


@asynchronous
async def test_a_model_whose_provider_is_missing_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="needs the provider 'bedrock', which is not installed here"):
        await routed(asked(provider="bedrock"))


@pytest.mark.parametrize(
    ("given", "keys", "sent"),
    [
        (Parameters(max_tokens=50), {}, Parameters(max_tokens=50)),
        (Parameters(max_tokens=50), {"limits": {"max_tokens": 9}}, Parameters(max_tokens=9)),
        (Parameters(temperature=0.7), {"refuses": ["temperature"]}, Parameters(temperature=None)),
        (Parameters(top_p=0.7, stop=("x",)), {"refuses": ["top_p", "stop"]}, Parameters()),
        (Parameters(temperature=1.0), {"limits": {"temperature": 1}}, Parameters(temperature=1.0)),
    ],
)
@asynchronous
async def test_parameters_become_what_the_model_takes(
    given: Parameters, keys: dict[str, Any], sent: Parameters
) -> None:
    got = await routed(asked(parameters=given, **keys))
    assert got.parameters == sent
    assert got.request.parameters == given


@asynchronous
async def test_a_temperature_above_the_models_own_maximum_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"temperature: the model 'm' takes at most 1, not 1\.5"):
        await routed(asked(parameters=Parameters(temperature=1.5), limits={"temperature": 1}))
    with pytest.raises(InvalidRequest, match="temperature"):
        await routed(asked(parameters=Parameters(temperature=1.5), limits={"temperature": 1}, refuses=["temperature"]))
