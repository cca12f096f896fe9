"""The running stages and providers: created from the presets in force, and replaced as a whole when those change.

A stage or a provider survives a reload unless its options change. A replaced one is closed when the last inference that
uses it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from pipeline.errors import ForgelineError, Unavailable
from pipeline.messages import ModelTarget
from pipeline.plugins import PluginError, Plugins
from pipeline.presets.models import ModelPreset
from pipeline.presets.pipeline import DEFAULT_STAGES, PipelinePreset, StageSpec, UnusablePipeline
from pipeline.presets.store import PresetChange, PresetKind, PresetStore
from pipeline.stage import (
    Availability,
    Context,
    Described,
    Measured,
    Measurement,
    Pipeline,
    Provider,
)
from pipeline.telemetry.spans import TracedPipeline, TracedProvider

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class PluginInstance:
    """A stage or a provider, created for this spec. `reference_count` counts the pipeline versions that have it."""

    spec: StageSpec
    plugin: Any
    reference_count: int = 0


@dataclass(eq=False)
class PipelineVersion:
    """Presets and the pipeline created from them. An inference keeps the version that it started with.

    `reference_count` counts the inferences, and 1 for the version in force.
    """

    models: Mapping[str, ModelPreset]
    pipeline: Pipeline
    stages: Sequence[PluginInstance]
    providers: Sequence[PluginInstance]
    reference_count: int = field(default=1)


class Runtime:
    """Owns the stages, the providers and the version in force. `kinds` are further kinds of presets to load."""

    def __init__(
        self,
        plugins: Plugins,
        roots: Sequence[Path],
        kinds: Sequence[PresetKind[Any]] = (),
        tracing: Tracing | None = None,
    ) -> None:
        self.plugins = plugins
        self.store = PresetStore(roots, [plugins.model_presets, plugins.pipeline_presets, *kinds])
        self.providers: dict[str, Provider] = {}
        self._tracing = tracing
        self._stage_providers: dict[str, Provider] = {}  # traced ones, where tracing is on
        self.context = Context(self._stage_providers, models=lambda: self._version.models, tracing=tracing)
        self._version = PipelineVersion({}, Pipeline([]), [], [])
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the presets, and create the providers and the stages. Raises UnusablePipeline, PluginError."""
        self._load_presets()
        for preset_error in self.store.snapshot.errors:
            if isinstance(preset_error.cause, UnusablePipeline):
                raise UnusablePipeline((), str(preset_error))
        await self._replace_version()

    async def reload(self) -> list[PresetChange]:
        """Load the changed preset files and put them into force. Returns the changes.

        If a stage or a provider can't be started, the current ones stay.
        """
        changes = self._load_presets()
        if changes:
            try:
                await self._replace_version()
            except PluginError:
                log.exception("plugin_start_failed")
                self._put_into_force(self._version.stages, self._version.providers)
        return changes

    def _load_presets(self) -> list[PresetChange]:
        changes = self.store.reload()
        for change in changes:
            if change.change == "rejected":
                log.warning("preset_rejected", kind=change.kind, name=change.name, error=str(change.error))
            else:
                log.info(f"preset_{change.change}", kind=change.kind, name=change.name)
        changed = {(change.kind, change.name) for change in changes}
        for warning in self.store.snapshot.warnings:
            if (warning.kind, warning.name) in changed:
                log.warning("preset_outdated", kind=warning.kind, name=warning.name, warning=str(warning))
        return changes

    async def _replace_version(self) -> None:
        """Put the loaded presets into force. Raises PluginError, and then nothing has changed."""
        preset = self._pipeline_preset()
        provider_specs = [StageSpec(name, dict(preset.providers.get(name, {}))) for name in self.plugins.providers]
        current = self._version
        providers = await self._create_plugins(
            "provider", self.plugins.create_provider, provider_specs, current.providers
        )
        self._install_providers(providers)  # before the stages are created, which may look for them
        try:
            stages = await self._create_plugins("stage", self.plugins.create_stage, preset.stages, current.stages)
        except PluginError:
            self._install_providers(current.providers)
            self._close_unused(providers)
            raise
        self._put_into_force(stages, providers)

    def _put_into_force(self, stages: Sequence[PluginInstance], providers: Sequence[PluginInstance]) -> None:
        for instance in (*stages, *providers):
            instance.reference_count += 1
        models = self.store.snapshot.get(self.plugins.model_presets)
        previous = self._version
        self._version = PipelineVersion(models, self._create_pipeline(stages), stages, providers)
        self.release(previous)

    def _install_providers(self, instances: Sequence[PluginInstance]) -> None:
        """Make these the providers that stages and the server find."""
        for instance in instances:
            name, provider = instance.spec.name, instance.plugin
            self.providers[name] = provider
            self._stage_providers[name] = TracedProvider(self._tracing, name, provider) if self._tracing else provider

    def _create_pipeline(self, instances: Sequence[PluginInstance]) -> Pipeline:
        if self._tracing is None:
            return Pipeline([instance.plugin for instance in instances])
        return TracedPipeline(self._tracing, [(instance.spec.name, instance.plugin) for instance in instances])

    def _pipeline_preset(self) -> PipelinePreset:
        """The pipeline to create. It has no stages while pipeline.yaml has never been valid: no request skips one."""
        kind, snapshot = self.plugins.pipeline_presets, self.store.snapshot
        presets = snapshot.get(kind)
        if "pipeline" in presets:
            return presets["pipeline"]
        if any(error.kind == kind.name for error in snapshot.errors):
            return PipelinePreset(())
        return PipelinePreset(tuple(StageSpec(name) for name in DEFAULT_STAGES))

    async def _create_plugins(
        self,
        noun: str,
        create: Callable[[str, Mapping[str, Any], Context], Any],
        specs: Sequence[StageSpec],
        current: Sequence[PluginInstance],
    ) -> list[PluginInstance]:
        """Return an instance for each of `specs`: a current one with the same options, or a new one, started."""
        reusable = list(current)
        instances: list[PluginInstance] = []
        for spec in specs:
            instance = next((candidate for candidate in reusable if candidate.spec == spec), None)
            if instance is not None:
                reusable.remove(instance)
                instances.append(instance)
                continue
            try:
                instance = PluginInstance(spec, create(spec.name, spec.options, self.context))
                instances.append(instance)  # before `start`, so that one whose start fails is closed too
                await _call_if_defined(instance.plugin, "start")
            except Exception as error:  # a plugin may raise anything
                self._close_unused(instances)
                raise PluginError(f"the {noun} {spec.name!r} can't be started: {error!r}") from error
        return instances

    def acquire(self) -> PipelineVersion:
        """Return the version in force, whose stages stay open until it is `release`d. Raises Unavailable."""
        if not self._version.stages:
            raise Unavailable(
                "No pipeline is in force, so no request can be answered; the server's log says what is wrong with it."
            )
        self._version.reference_count += 1
        return self._version

    @property
    def models(self) -> Mapping[str, ModelPreset]:
        return self._version.models

    async def availability(self, preset: ModelPreset) -> Availability:
        provider = self.providers.get(preset.provider)
        if provider is None:
            return Availability("unavailable", f"its provider {preset.provider!r} is not installed here")
        try:
            return await provider.availability(preset)
        except ForgelineError as error:
            return Availability("unknown", error.message)
        except Exception:  # a plugin's bug must not hide the other models
            log.exception("availability_check_failed", provider=preset.provider)
            return Availability("unknown", "its provider failed to say; the server's log has more")

    def measurements(self, name: str) -> Iterator[Measurement]:
        """The gauges of the running stages for this model, and of its provider."""
        target = ModelTarget(name, self.models[name])
        for plugin in self._plugins_of(target):
            if isinstance(plugin, Measured):
                try:
                    yield from list(plugin.gauges(target))
                except Exception:  # a plugin's bug must not hide the others
                    log.exception("gauges_failed", model=name, plugin=type(plugin).__name__)

    def describe(self, name: str) -> dict[str, Any]:
        """What the running stages say of this model, and its provider."""
        target = ModelTarget(name, self.models[name])
        fields: dict[str, Any] = {}
        for plugin in self._plugins_of(target):
            if isinstance(plugin, Described):
                try:
                    fields |= msgspec.to_builtins(dict(plugin.describe(target)))  # which JSON can hold
                except Exception:  # as above
                    log.exception("describe_failed", model=name, plugin=type(plugin).__name__)
        return fields

    def _plugins_of(self, target: ModelTarget) -> Iterator[object]:
        """The running stages and the model's provider."""
        yield from (instance.plugin for instance in self._version.stages)
        if target.preset.provider in self.providers:
            yield self.providers[target.preset.provider]

    def release(self, version: PipelineVersion) -> None:
        """Release a version. After its last reference, what no other version has is closed."""
        version.reference_count -= 1
        if version.reference_count:
            return
        instances = (*version.stages, *version.providers)
        for instance in instances:
            instance.reference_count -= 1
        self._close_unused(instances)

    def _close_unused(self, instances: Sequence[PluginInstance]) -> None:
        for instance in instances:
            if not instance.reference_count:
                closing = _call_if_defined(instance.plugin, "close")
                task = asyncio.create_task(closing, name=f"close {instance.spec.name}")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self.release(self._version)
        for error in await asyncio.gather(*self._closing, return_exceptions=True):
            if isinstance(error, BaseException):
                log.error("plugin_close_failed", exc_info=error)


async def _call_if_defined(plugin: object, method: str) -> None:
    """Call `start` or `close`, which stages and providers need not have."""
    function = getattr(plugin, method, None)
    if function is not None:
        await function()
