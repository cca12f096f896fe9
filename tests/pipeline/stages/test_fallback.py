"""fallback: the preset's other models, in their order, before the first chunk."""

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
from pipeline.messages import Events, Inference
from pipeline.presets import ModelPreset
from pipeline.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages.fallback import create
from tests.aio import asynchronous
from tests.pipeline.making import all_of, asked, play, preset


class Falling:
    """The stage before models that answer by their name, or fail as `errors` say."""

    def __init__(self, *others: str, **errors: BaseException) -> None:
        self.context = Context()
        self.others = others
        self.errors = errors
        self.seen: list[Inference] = []

    async def __call__(self, **presets: ModelPreset) -> list[Any]:
        inference = asked(fallback=list(self.others))
        inference = replace(inference, models={**inference.models, **presets})
        return await all_of(await create({}, self.context)(inference, self._proceed))

    async def _proceed(self, inference: Inference) -> Events:
        self.seen.append(inference)
        if inference.model in self.errors:
            raise self.errors[inference.model]
        return Events(play([inference.model]))

    @property
    def asked(self) -> list[str]:
        return [inference.model for inference in self.seen]


@asynchronous
async def test_a_model_that_answers_is_the_only_one_asked() -> None:
    falling = Falling("x")
    assert await falling() == ["m"]
    assert (falling.asked, falling.context.tally("m").fallbacks) == (["m"], 0)


@pytest.mark.parametrize(
    "error", [ModelError("500"), Unavailable("gone"), RateLimited("busy"), ModelNotDeployed("deploy it")]
)
@asynchronous
async def test_the_others_are_asked_in_their_order(error: ForgelineError) -> None:
    falling = Falling("x", "y", "z", m=error, x=ModelError("too"))
    assert await falling() == ["y"]
    assert (falling.asked, falling.context.tally("m").fallbacks) == (["m", "x", "y"], 2)


@pytest.mark.parametrize("error", [InvalidRequest("a temperature of 9"), UnknownModel("m"), ZeroDivisionError()])
@asynchronous
async def test_where_the_request_or_our_code_is_wrong_nobody_else_is_asked(error: Exception) -> None:
    falling = Falling("x", m=error)
    with pytest.raises(type(error)) as caught:
        await falling()
    assert caught.value is error
    assert falling.asked == ["m"]


@asynchronous
async def test_where_all_fail_the_client_hears_of_the_model_that_it_asked() -> None:
    first = RateLimited("busy", retry_after=7.0)
    falling = Falling("x", "y", m=first, x=ModelError("500"), y=InvalidRequest("it takes no frames"))
    with pytest.raises(RateLimited) as caught:
        await falling()
    assert caught.value is first
    assert falling.asked == ["m", "x", "y"]


@asynchronous
async def test_one_that_does_not_exist_is_passed_over() -> None:
    falling = Falling("nobody", "x", m=ModelError("500"), nobody=UnknownModel("nobody"))
    assert await falling() == ["x"]


@asynchronous
async def test_the_others_start_from_what_was_asked_and_know_by_whom() -> None:
    falling = Falling("x", m=ModelError("500"))
    await falling()
    first, second = falling.seen
    assert (second.model, second.asked) == ("x", "m")
    assert replace(second, model="m") == first


@asynchronous
async def test_a_fallback_of_a_fallback_is_not_asked() -> None:
    falling = Falling("x", m=ModelError("500"), x=ModelError("500"))
    with pytest.raises(ModelError):
        await falling(x=preset(fallback=["y", "m"]))
    assert falling.asked == ["m", "x"]


@asynchronous
async def test_after_the_first_chunk_nobody_else_is_asked() -> None:
    seen: list[str] = []

    async def proceed(inference: Inference) -> Events:
        seen.append(inference.model)
        return Events(play(["a", ModelError("cut")]))

    events = await create({}, Context())(asked(fallback=["x"]), proceed)
    with pytest.raises(ModelError, match="cut"):
        await all_of(events)
    assert seen == ["m"]


def test_it_takes_no_options() -> None:
    with pytest.raises(SchemaError, match="models: unknown field"):
        create({"models": ["x"]}, Context())
