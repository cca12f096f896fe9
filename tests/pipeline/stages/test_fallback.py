"""fallback: the fallback models of a preset are called in order, before the first chunk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import (
    ForgelineError,
    InvalidRequest,
    ModelError,
    ModelNotDeployed,
    RateLimited,
    Unavailable,
    UnknownModel,
)
from pipeline.messages import EventStream, Inference
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages.fallback import FallbackCounter
from tests.async_tests import async_test
from tests.pipeline.factories import collect, create_stage, make_inference, make_preset, play_steps


class FallbackScenario:
    """The stage in front of models that answer with their name, or raise their error in `errors`."""

    def __init__(self, *fallbacks: str, **errors: BaseException) -> None:
        self.context = Context()
        self.fallbacks = fallbacks
        self.errors = errors
        self.inferences: list[Inference] = []

    async def __call__(self, **presets: ModelPreset) -> list[Any]:
        inference = make_inference(fallback=list(self.fallbacks))
        inference = replace(inference, models={**inference.models, **presets})
        return await collect(await create_stage("fallback", {}, self.context)(inference, self._proceed))

    async def _proceed(self, inference: Inference) -> EventStream:
        self.inferences.append(inference)
        if inference.model in self.errors:
            raise self.errors[inference.model]
        return EventStream(play_steps([inference.model]))

    @property
    def called_models(self) -> list[str]:
        return [inference.model for inference in self.inferences]


@async_test
async def test_no_fallback_is_called_when_the_model_answers() -> None:
    scenario = FallbackScenario("x")
    assert await scenario() == ["m"]
    assert (scenario.called_models, scenario.context.state("m", FallbackCounter).fallbacks) == (["m"], 0)


@pytest.mark.parametrize(
    "error", [ModelError("500"), Unavailable("gone"), RateLimited("busy"), ModelNotDeployed("deploy it")]
)
@async_test
async def test_fallbacks_are_called_in_order_after_an_error(error: ForgelineError) -> None:
    scenario = FallbackScenario("x", "y", "z", m=error, x=ModelError("too"))
    assert await scenario() == ["y"]
    assert (scenario.called_models, scenario.context.state("m", FallbackCounter).fallbacks) == (["m", "x", "y"], 2)


@pytest.mark.parametrize("error", [InvalidRequest("a temperature of 9"), UnknownModel("m"), ZeroDivisionError()])
@async_test
async def test_no_fallback_is_called_for_an_invalid_request_or_a_bug(error: Exception) -> None:
    scenario = FallbackScenario("x", m=error)
    with pytest.raises(type(error)) as caught:
        await scenario()
    assert caught.value is error
    assert scenario.called_models == ["m"]


@async_test
async def test_error_of_requested_model_is_raised_when_all_fallbacks_fail() -> None:
    first = RateLimited("busy", retry_after=7.0)
    scenario = FallbackScenario("x", "y", m=first, x=ModelError("500"), y=InvalidRequest("it takes no frames"))
    with pytest.raises(RateLimited) as caught:
        await scenario()
    assert caught.value is first
    assert scenario.called_models == ["m", "x", "y"]


@async_test
async def test_unknown_fallback_is_skipped() -> None:
    scenario = FallbackScenario("nobody", "x", m=ModelError("500"), nobody=UnknownModel("nobody"))
    assert await scenario() == ["x"]


@async_test
async def test_fallback_gets_the_original_inference_and_the_requested_model() -> None:
    scenario = FallbackScenario("x", m=ModelError("500"))
    await scenario()
    first, second = scenario.inferences
    assert (second.model, second.requested_model) == ("x", "m")
    assert replace(second, model="m") == first


@async_test
async def test_fallbacks_of_a_fallback_are_ignored() -> None:
    scenario = FallbackScenario("x", m=ModelError("500"), x=ModelError("500"))
    with pytest.raises(ModelError):
        await scenario(x=make_preset(fallback=["y", "m"]))
    assert scenario.called_models == ["m", "x"]


@async_test
async def test_no_fallback_is_called_after_the_first_chunk() -> None:
    called_models: list[str] = []

    async def proceed(inference: Inference) -> EventStream:
        called_models.append(inference.model)
        return EventStream(play_steps(["a", ModelError("cut")]))

    events = await create_stage("fallback", {}, Context())(make_inference(fallback=["x"]), proceed)
    with pytest.raises(ModelError, match="cut"):
        await collect(events)
    assert called_models == ["m"]


def test_options_are_rejected() -> None:
    with pytest.raises(SchemaError, match="models: unknown field"):
        create_stage("fallback", {"models": ["x"]}, Context())
