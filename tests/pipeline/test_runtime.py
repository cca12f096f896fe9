"""The live stages and providers: what a reload keeps, what it replaces, and when that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from pipeline.errors import Unavailable
from pipeline.messages import Events, Inference
from pipeline.plugins import PROVIDERS, STAGES, Plugins
from pipeline.presets import DEFAULT_STAGES, ModelPreset, UnusablePipeline
from pipeline.runtime import Runtime
from pipeline.stage import Availability, Context, Proceed
from tests.aio import asynchronous, comes_true
from tests.serving import says, write_presets


@dataclass(eq=False)
class Probe:
    """A stage that only tells what becomes of it."""

    options: Mapping[str, Any]
    journal: list[str]
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        return await proceed(inference)

    async def start(self) -> None:
        self.journal.append(f"start {dict(self.options)}")
        if "fails" in self.options:
            raise OSError("no such device")

    async def close(self) -> None:
        self.journal.append(f"close {dict(self.options)}")
        self.closed.set()


class House:
    """A runtime over a folder, with a stage `probe`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal: list[str] = []
        self.probes: list[Probe] = []
        self.runtime = Runtime(Plugins({**STAGES, "probe": self._probe}, PROVIDERS), [folder])

    def _probe(self, options: Mapping[str, Any], context: Context) -> Probe:
        self.probes.append(Probe(options, self.journal))
        return self.probes[-1]

    def write(self, *stages: Any, **models: Mapping[str, Any]) -> None:
        write_presets(self.folder, models, ["route_model", *stages, "invoke", "normalize_envelope"])
        (self.folder / "pipeline.yaml").rename(self.folder / "new")
        (self.folder / "new").rename(self.folder / "pipeline.yaml")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@asynchronous
async def test_a_stage_lives_on_over_a_reload_unless_its_options_change(house: House) -> None:
    house.write({"probe": {"n": 1}})
    await house.runtime.start()
    house.write("limit", {"probe": {"n": 1}}, echo=says("echo"))
    await house.runtime.reload()
    assert house.journal == ["start {'n': 1}"]
    house.write({"probe": {"n": 2}})
    await house.runtime.reload()
    await house.runtime.close()
    assert sorted(house.journal) == ["close {'n': 1}", "close {'n': 2}", "start {'n': 1}", "start {'n': 2}"]


@asynchronous
async def test_a_replaced_stage_is_closed_when_the_last_who_uses_it_has_ended(house: House) -> None:
    house.write({"probe": {"n": 1}})
    await house.runtime.start()
    first, second = house.runtime.acquire(), house.runtime.acquire()
    probe = first.pipeline.stages[1]
    assert isinstance(probe, Probe)
    house.write()
    await house.runtime.reload()
    house.runtime.release(first)
    await asyncio.sleep(0)
    assert not probe.closed.is_set()
    house.runtime.release(second)
    await probe.closed.wait()
    await house.runtime.close()
    assert house.journal.count("close {'n': 1}") == 1


@asynchronous
async def test_a_stage_that_two_editions_share_is_closed_with_the_last(house: House) -> None:
    house.write("probe")
    await house.runtime.start()
    held = house.runtime.acquire()
    house.write("probe", "limit")
    await house.runtime.reload()
    house.runtime.release(held)
    await asyncio.sleep(0)
    assert house.journal == ["start {}"]
    await house.runtime.close()
    assert house.journal == ["start {}", "close {}"]


@asynchronous
async def test_the_same_stage_may_stand_there_twice_with_different_options(house: House) -> None:
    house.write({"probe": {"n": 1}}, {"probe": {"n": 2}})
    await house.runtime.start()
    before = house.runtime.acquire().pipeline.stages
    house.write({"probe": {"n": 1}}, {"probe": {"n": 2}}, echo=says("echo"))
    await house.runtime.reload()
    assert house.runtime.acquire().pipeline.stages == before
    assert before[1] is not before[2]


@asynchronous
async def test_who_began_with_an_edition_keeps_its_models(house: House) -> None:
    house.write(echo=says("echo"))
    await house.runtime.start()
    held = house.runtime.acquire()
    (house.folder / "models" / "echo.yaml").unlink()
    await house.runtime.reload()
    assert (list(held.models), list(house.runtime.models)) == (["echo"], [])


@asynchronous
async def test_a_pipeline_that_breaks_later_leaves_the_last_good_one_in_force(house: House) -> None:
    house.write("probe")
    await house.runtime.start()
    (house.folder / "pipeline.yaml").write_text("stages: [nobody]")
    (change,) = await house.runtime.reload()
    assert change.change == "rejected"
    assert any(isinstance(stage, Probe) for stage in house.runtime.acquire().pipeline.stages)
    assert house.journal == ["start {}"]


@asynchronous
async def test_a_pipeline_that_is_broken_at_the_start_lets_nothing_pass_until_it_is_mended(house: House) -> None:
    (house.folder / "pipeline.yaml").write_text("stages: [")
    await house.runtime.start()
    with pytest.raises(Unavailable, match="No pipeline is in force"):
        house.runtime.acquire()
    house.write()
    await house.runtime.reload()
    assert len(house.runtime.acquire().pipeline.stages) == 3


@asynchronous
async def test_a_pipeline_that_can_never_answer_does_not_start(house: House) -> None:
    house.write("nobody")
    with pytest.raises(UnusablePipeline, match=r"pipeline\.yaml:\d: stages\[1\]: nobody provides a stage 'nobody'"):
        await house.runtime.start()


@asynchronous
async def test_without_a_pipeline_the_default_one_holds(house: House) -> None:
    await house.runtime.start()
    stages = house.runtime.acquire().pipeline.stages
    assert [type(stage) for stage in stages] == [type(STAGES[name]({}, Context())) for name in DEFAULT_STAGES]
    await house.runtime.close()


@asynchronous
async def test_a_broken_model_keeps_nobody_from_starting(house: House) -> None:
    house.write(bad={"provider": "scripted"}, good=says("echo"))
    await house.runtime.start()
    assert list(house.runtime.models) == ["good"]


@asynchronous
async def test_a_model_without_its_provider_is_unavailable_and_says_why(house: House) -> None:
    await house.runtime.start()
    preset = ModelPreset(provider="nobody", model="m")
    assert await house.runtime.availability(preset) == Availability(
        "unavailable", "its provider 'nobody' is not installed here"
    )
    assert (await house.runtime.availability(ModelPreset(provider="scripted", model="echo"))).status == "available"


@asynchronous
async def test_a_provider_that_cannot_tell_is_unknown(house: House) -> None:
    class Unsure:
        async def availability(self, preset: ModelPreset) -> Availability:
            raise Unavailable("no credentials")

    await house.runtime.start()
    house.runtime.providers["unsure"] = Unsure()  # type: ignore[assignment]  # it is only asked this
    told = await house.runtime.availability(ModelPreset(provider="unsure", model="m"))
    assert told == Availability("unknown", "no credentials")


@asynchronous
async def test_a_provider_with_a_bug_hides_nobody_and_the_log_says_why(house: House) -> None:
    class Buggy:
        async def availability(self, preset: ModelPreset) -> Availability:
            raise ZeroDivisionError("secret")

    await house.runtime.start()
    house.runtime.providers["buggy"] = Buggy()  # type: ignore[assignment]  # as above
    with structlog.testing.capture_logs() as logs:
        told = await house.runtime.availability(ModelPreset(provider="buggy", model="m"))
    assert told.status == "unknown"
    assert "secret" not in str(told.reason)
    assert (logs[0]["provider"], logs[0]["log_level"]) == ("buggy", "error")


@asynchronous
async def test_where_a_stage_fails_to_start_the_old_ones_stay_and_new_models_count(house: House) -> None:
    house.write("probe")
    await house.runtime.start()
    before = house.runtime.acquire().pipeline.stages
    house.write("probe", {"probe": {"n": 2}}, {"probe": {"fails": True}}, echo=says("echo"))
    with structlog.testing.capture_logs() as logs:
        await house.runtime.reload()
    after = house.runtime.acquire()
    assert (after.pipeline.stages, list(after.models)) == (before, ["echo"])
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "a stage can't be started; the pipeline stays as it was"
    ]
    await comes_true(lambda: len(house.journal) == 5)
    assert house.journal[:3] == ["start {}", "start {'n': 2}", "start {'fails': True}"]
    assert house.journal[3:] == ["close {'n': 2}", "close {'fails': True}"]


@asynchronous
async def test_a_pipeline_that_could_not_start_comes_into_force_once_it_is_mended(house: House) -> None:
    house.write("probe")
    await house.runtime.start()
    house.write({"probe": {"fails": True}})
    await house.runtime.reload()
    house.write({"probe": {"n": 2}})
    await house.runtime.reload()
    assert [probe.options for probe in house.runtime.acquire().pipeline.stages if isinstance(probe, Probe)] == [
        {"n": 2}
    ]
