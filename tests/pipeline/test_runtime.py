"""Runtime: what a reload keeps and replaces, when stages are closed, and the availability of models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from pipeline.errors import Unavailable
from pipeline.messages import EventStream, Inference, ModelTarget
from pipeline.plugins import PROVIDERS, STAGES, PluginError, Plugins
from pipeline.presets.models import ModelPreset
from pipeline.presets.pipeline import DEFAULT_STAGES, UnusablePipeline
from pipeline.runtime import Runtime
from pipeline.stage import Availability, Context, Measurement, Proceed
from tests.async_tests import async_test, wait_until
from tests.running_server import scripted_model, write_presets


@dataclass(eq=False)
class Probe:
    """A stage that records its start and close."""

    options: Mapping[str, Any]
    journal: list[str]
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        return await proceed(inference)

    async def start(self) -> None:
        self.journal.append(f"start {dict(self.options)}")
        if "fails" in self.options:
            raise OSError("no such device")

    async def close(self) -> None:
        self.journal.append(f"close {dict(self.options)}")
        self.closed.set()


class RuntimeHarness:
    """A runtime over a folder of presets, with a stage `probe`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal: list[str] = []
        self.probes: list[Probe] = []
        self.runtime = Runtime(Plugins({**STAGES, "probe": self._create_probe}, PROVIDERS), [folder])

    def _create_probe(self, options: Mapping[str, Any], context: Context) -> Probe:
        self.probes.append(Probe(options, self.journal))
        return self.probes[-1]

    def write(self, *stages: Any, **models: Mapping[str, Any]) -> None:
        write_presets(self.folder, models, ["route_model", *stages, "invoke", "normalize_envelope"])
        (self.folder / "pipeline.yaml").rename(self.folder / "new")
        (self.folder / "new").rename(self.folder / "pipeline.yaml")


@pytest.fixture
def harness(tmp_path: Path) -> RuntimeHarness:
    return RuntimeHarness(tmp_path)


@async_test
async def test_reload_keeps_stage_unless_its_options_change(harness: RuntimeHarness) -> None:
    harness.write({"probe": {"n": 1}})
    await harness.runtime.start()
    harness.write("limit", {"probe": {"n": 1}}, echo=scripted_model("echo"))
    await harness.runtime.reload()
    assert harness.journal == ["start {'n': 1}"]
    harness.write({"probe": {"n": 2}})
    await harness.runtime.reload()
    await harness.runtime.close()
    assert sorted(harness.journal) == ["close {'n': 1}", "close {'n': 2}", "start {'n': 1}", "start {'n': 2}"]


@async_test
async def test_replaced_stage_closes_after_last_release(harness: RuntimeHarness) -> None:
    harness.write({"probe": {"n": 1}})
    await harness.runtime.start()
    first, second = harness.runtime.acquire(), harness.runtime.acquire()
    probe = first.pipeline.stages[1]
    assert isinstance(probe, Probe)
    harness.write()
    await harness.runtime.reload()
    harness.runtime.release(first)
    await asyncio.sleep(0)
    assert not probe.closed.is_set()
    harness.runtime.release(second)
    await probe.closed.wait()
    await harness.runtime.close()
    assert harness.journal.count("close {'n': 1}") == 1


@async_test
async def test_stage_shared_by_two_versions_closes_with_last_version(harness: RuntimeHarness) -> None:
    harness.write("probe")
    await harness.runtime.start()
    version = harness.runtime.acquire()
    harness.write("probe", "limit")
    await harness.runtime.reload()
    harness.runtime.release(version)
    await asyncio.sleep(0)
    assert harness.journal == ["start {}"]
    await harness.runtime.close()
    assert harness.journal == ["start {}", "close {}"]


@async_test
async def test_reload_keeps_both_instances_of_stage_listed_twice(harness: RuntimeHarness) -> None:
    harness.write({"probe": {"n": 1}}, {"probe": {"n": 2}})
    await harness.runtime.start()
    before = harness.runtime.acquire().pipeline.stages
    harness.write({"probe": {"n": 1}}, {"probe": {"n": 2}}, echo=scripted_model("echo"))
    await harness.runtime.reload()
    assert harness.runtime.acquire().pipeline.stages == before
    assert before[1] is not before[2]


@async_test
async def test_acquired_version_keeps_its_models_after_reload(harness: RuntimeHarness) -> None:
    harness.write(echo=scripted_model("echo"))
    await harness.runtime.start()
    version = harness.runtime.acquire()
    (harness.folder / "models" / "echo.yaml").unlink()
    await harness.runtime.reload()
    assert (list(version.models), list(harness.runtime.models)) == (["echo"], [])


@async_test
async def test_outdated_stage_order_is_used_and_logged_once_per_change(harness: RuntimeHarness) -> None:
    harness.write("limit", "circuit_breaker", "retry")
    with structlog.testing.capture_logs() as logs:
        await harness.runtime.start()
        harness.write("limit", "circuit_breaker", "retry", m=scripted_model("echo"))
        await harness.runtime.reload()
        assert [log["warning"].partition(": ")[0] for log in logs if log["event"] == "preset_outdated"] == [
            "pipeline.yaml:4"
        ]
        harness.write("limit", "retry")
        await harness.runtime.reload()
        harness.write("retry", "limit")
        await harness.runtime.reload()
    assert len([log for log in logs if log["event"] == "preset_outdated"]) == 2
    names = [type(instance.plugin).__name__ for instance in harness.runtime.acquire().stages]
    assert names == ["RouteModel", "Retry", "Limit", "Invoke", "NormalizeEnvelope"]


@async_test
async def test_invalid_pipeline_on_reload_keeps_last_valid_pipeline(harness: RuntimeHarness) -> None:
    harness.write("probe")
    await harness.runtime.start()
    (harness.folder / "pipeline.yaml").write_text("stages: [nobody]")
    (change,) = await harness.runtime.reload()
    assert change.change == "rejected"
    assert any(isinstance(stage, Probe) for stage in harness.runtime.acquire().pipeline.stages)
    assert harness.journal == ["start {}"]


@async_test
async def test_invalid_pipeline_at_start_rejects_requests_until_fixed(harness: RuntimeHarness) -> None:
    (harness.folder / "pipeline.yaml").write_text("stages: [")
    await harness.runtime.start()
    with pytest.raises(Unavailable, match="No pipeline is in force"):
        harness.runtime.acquire()
    harness.write()
    await harness.runtime.reload()
    assert len(harness.runtime.acquire().pipeline.stages) == 3


@async_test
async def test_unusable_pipeline_prevents_start(harness: RuntimeHarness) -> None:
    harness.write("nobody")
    with pytest.raises(UnusablePipeline, match=r"pipeline\.yaml:\d: stages\[1\]: nobody provides a stage 'nobody'"):
        await harness.runtime.start()


@async_test
async def test_missing_pipeline_file_uses_default_stages(harness: RuntimeHarness) -> None:
    await harness.runtime.start()
    stages = harness.runtime.acquire().pipeline.stages
    assert [type(stage) for stage in stages] == [STAGES[name] for name in DEFAULT_STAGES]
    await harness.runtime.close()


@async_test
async def test_invalid_model_preset_does_not_prevent_start(harness: RuntimeHarness) -> None:
    harness.write(bad={"provider": "scripted"}, good=scripted_model("echo"))
    await harness.runtime.start()
    assert list(harness.runtime.models) == ["good"]


@async_test
async def test_availability_of_model_with_unknown_provider_is_unavailable(harness: RuntimeHarness) -> None:
    await harness.runtime.start()
    preset = ModelPreset(provider="nobody", model="m")
    assert await harness.runtime.availability(preset) == Availability(
        "unavailable", "its provider 'nobody' is not installed here"
    )
    assert (await harness.runtime.availability(ModelPreset(provider="scripted", model="echo"))).status == "available"


@async_test
async def test_availability_error_of_provider_is_unknown_with_reason(harness: RuntimeHarness) -> None:
    class FailingProvider:
        async def availability(self, preset: ModelPreset) -> Availability:
            raise Unavailable("no credentials")

    await harness.runtime.start()
    harness.runtime.providers["unsure"] = FailingProvider()  # type: ignore[assignment]  # only `availability` is called
    availability = await harness.runtime.availability(ModelPreset(provider="unsure", model="m"))
    assert availability == Availability("unknown", "no credentials")


@async_test
async def test_availability_exception_of_provider_is_unknown_and_logged(harness: RuntimeHarness) -> None:
    class BuggyProvider:
        async def availability(self, preset: ModelPreset) -> Availability:
            raise ZeroDivisionError("secret")

    await harness.runtime.start()
    harness.runtime.providers["buggy"] = BuggyProvider()  # type: ignore[assignment]  # as above
    with structlog.testing.capture_logs() as logs:
        availability = await harness.runtime.availability(ModelPreset(provider="buggy", model="m"))
    assert availability.status == "unknown"
    assert "secret" not in str(availability.reason)
    assert (logs[0]["provider"], logs[0]["log_level"]) == ("buggy", "error")


@async_test
async def test_reload_with_failing_stage_start_keeps_stages_and_loads_models(harness: RuntimeHarness) -> None:
    harness.write("probe")
    await harness.runtime.start()
    before = harness.runtime.acquire().pipeline.stages
    harness.write("probe", {"probe": {"n": 2}}, {"probe": {"fails": True}}, echo=scripted_model("echo"))
    with structlog.testing.capture_logs() as logs:
        await harness.runtime.reload()
    after = harness.runtime.acquire()
    assert (after.pipeline.stages, list(after.models)) == (before, ["echo"])
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["plugin_start_failed"]
    await wait_until(lambda: len(harness.journal) == 5)
    assert harness.journal[:3] == ["start {}", "start {'n': 2}", "start {'fails': True}"]
    assert harness.journal[3:] == ["close {'n': 2}", "close {'fails': True}"]


@async_test
async def test_reload_after_failed_stage_start_uses_fixed_pipeline(harness: RuntimeHarness) -> None:
    harness.write("probe")
    await harness.runtime.start()
    harness.write({"probe": {"fails": True}})
    await harness.runtime.reload()
    harness.write({"probe": {"n": 2}})
    await harness.runtime.reload()
    assert [probe.options for probe in harness.runtime.acquire().pipeline.stages if isinstance(probe, Probe)] == [
        {"n": 2}
    ]


class ProviderHarness:
    """A runtime whose only provider is a `Probe`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal: list[str] = []
        create: Any = lambda options, context: Probe(options, self.journal)  # noqa: E731 - a factory is a callable
        self.runtime = Runtime(Plugins(STAGES, {"probe": create}), [folder])

    def write(self, **options: Any) -> None:
        stages = ["route_model", "invoke", "normalize_envelope"]
        (self.folder / "new").write_text(yaml.safe_dump({"stages": stages, "providers": {"probe": options}}))
        (self.folder / "new").rename(self.folder / "pipeline.yaml")


@async_test
async def test_reload_replaces_provider_only_when_its_options_change(tmp_path: Path) -> None:
    harness = ProviderHarness(tmp_path)
    harness.write(n=1)
    await harness.runtime.start()
    first = harness.runtime.providers["probe"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.yaml").write_text(yaml.safe_dump({"provider": "probe", "model": "m"}))
    await harness.runtime.reload()
    assert harness.runtime.providers["probe"] is first
    version = harness.runtime.acquire()
    harness.write(n=2)
    await harness.runtime.reload()
    await asyncio.sleep(0)
    assert harness.journal == ["start {'n': 1}", "start {'n': 2}"]
    harness.runtime.release(version)
    await harness.runtime.close()
    assert sorted(harness.journal[2:]) == ["close {'n': 1}", "close {'n': 2}"]


@async_test
async def test_reload_with_failing_provider_start_keeps_provider(tmp_path: Path) -> None:
    harness = ProviderHarness(tmp_path)
    harness.write(n=1)
    await harness.runtime.start()
    first = harness.runtime.providers["probe"]
    harness.write(fails=True)
    await harness.runtime.reload()
    assert harness.runtime.providers == harness.runtime.context.providers == {"probe": first}
    assert harness.runtime.acquire().providers[0].plugin is first


@pytest.mark.parametrize("group", ["stage", "provider"])
@async_test
async def test_failing_plugin_start_prevents_server_start(tmp_path: Path, group: str) -> None:
    harness = RuntimeHarness(tmp_path) if group == "stage" else ProviderHarness(tmp_path)
    if isinstance(harness, RuntimeHarness):
        harness.write({"probe": {"fails": True}})
    else:
        harness.write(fails=True)
    with pytest.raises(PluginError, match=rf"the {group} 'probe' can't be started: OSError\('no such device'\)"):
        await harness.runtime.start()


class RudeStage:
    """A stage whose gauges and description are wrong for some models."""

    def __init__(self, options: Any, context: Context) -> None: ...

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        return await proceed(inference)

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        yield Measurement("rudeness", "How rude it is.", 1)
        yield Measurement({"bad": "not a name"}.get(target.model, "rude"), "Whatever.", 1)

    def describe(self, target: ModelTarget) -> Mapping[str, object]:
        return {"mood": {"bad": object()}.get(target.model, "fine")}


@pytest.mark.parametrize(
    ("name", "value", "labels"),
    [
        ("a-b", 1, {}),
        ("", 1, {}),
        ("a", None, {}),
        ("a", 1, {"model": "m"}),
        ("a", 1, {"b c": "d"}),
        ("a", 1, {"b": 3}),
    ],
)
def test_measurement_that_prometheus_would_not_take_is_rejected(name: str, value: Any, labels: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Measurement(name, "A number.", value, labels)


@async_test
async def test_exception_in_gauges_or_describe_hides_no_other_plugin(tmp_path: Path) -> None:
    runtime = Runtime(Plugins({**STAGES, "rude": RudeStage}, PROVIDERS), [tmp_path])
    stages = ["rude", "route_model", "circuit_breaker", "invoke", "normalize_envelope"]
    write_presets(tmp_path, {name: scripted_model("echo") for name in ("good", "bad")}, stages)
    await runtime.start()
    with structlog.testing.capture_logs() as logs:
        names = {model: [gauge.name for gauge in runtime.measurements(model)] for model in ("good", "bad")}
        fields = [runtime.describe(model) for model in ("good", "bad")]
    breaker = ["breaker_state"] * 3
    assert names == {
        "good": ["rudeness", "rude", *breaker, "upstream_connections"],
        "bad": [*breaker, "upstream_connections"],
    }
    assert fields == [{"mood": "fine", "breaker": "closed"}, {"breaker": "closed"}]
    assert [entry["event"] for entry in logs] == ["gauges_failed", "describe_failed"]
    await runtime.close()
