"""The running stages and providers: created from the presets in force, and replaced as a whole when those change.

A stage survives a reload unless its options change. A replaced stage is closed when the last inference that uses it has
ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.errors import ForgelineError, Unavailable
from pipeline.plugins import PluginError, Plugins
from pipeline.presets.models import MODEL_PRESETS, ModelPreset
from pipeline.presets.pipeline import DEFAULT_STAGES, StageSpec, UnusablePipeline, pipeline_preset_kind
from pipeline.presets.store import PresetChange, PresetKind, PresetStore
from pipeline.stage import Availability, Context, Pipeline, Provider, Stage
from pipeline.telemetry.spans import TracedPipeline, TracedProvider

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class StageInstance:
    """A created stage. `reference_count` counts the pipeline versions that have it."""

    spec: StageSpec
    stage: Stage
    reference_count: int = 0


@dataclass(eq=False)
class PipelineVersion:
    """Presets and the pipeline created from them. An inference keeps the version that it started with.

    `reference_count` counts the inferences, and 1 for the version in force.
    """

    models: Mapping[str, ModelPreset]
    pipeline: Pipeline
    stage_instances: Sequence[StageInstance]
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
        self._plugins = plugins
        self._pipeline_kind = pipeline_preset_kind(plugins.check_stage)
        self.store = PresetStore(roots, [MODEL_PRESETS, self._pipeline_kind, *kinds])
        self.providers: dict[str, Provider] = {}
        self._tracing = tracing
        self._stage_providers: dict[str, Provider] = {}  # traced ones, where tracing is on
        self.context = Context(self._stage_providers, models=lambda: self._version.models, tracing=tracing)
        self._version = PipelineVersion({}, Pipeline([]), [])
        self._is_loaded = False
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Create the providers, load the presets and create the stages. Raises UnusablePipeline, PluginError."""
        for name, create in self._plugins.providers.items():
            try:
                provider = self.providers[name] = create({}, self.context)
                self._stage_providers[name] = (
                    TracedProvider(self._tracing, name, provider) if self._tracing else provider
                )
                await _call_if_defined(provider, "start")
            except Exception as error:  # a plugin may raise anything
                raise PluginError(f"the provider {name!r} can't be started: {error!r}") from error
        await self.reload()
        for preset_error in self.store.snapshot.errors:
            if isinstance(preset_error.cause, UnusablePipeline):
                raise UnusablePipeline((), str(preset_error))

    async def reload(self) -> list[PresetChange]:
        """Load the changed preset files and put them into force. Returns the changes."""
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
        if changes or not self._is_loaded:
            self._is_loaded = True
            await self._replace_version()
        return changes

    async def _replace_version(self) -> None:
        """Put the loaded presets into force. If a stage can't be started, the current stages stay."""
        try:
            instances = await self._create_stages(self._stage_specs())
        except Exception:  # a plugin may raise anything
            log.exception("stage_start_failed")
            instances = list(self._version.stage_instances)
        for instance in instances:
            instance.reference_count += 1
        models = self.store.snapshot.get(MODEL_PRESETS)
        previous, self._version = self._version, PipelineVersion(models, self._create_pipeline(instances), instances)
        self.release(previous)

    def _create_pipeline(self, instances: Sequence[StageInstance]) -> Pipeline:
        if self._tracing is None:
            return Pipeline([instance.stage for instance in instances])
        return TracedPipeline(self._tracing, [(instance.spec.name, instance.stage) for instance in instances])

    def _stage_specs(self) -> Sequence[StageSpec]:
        """The stages to create; none while pipeline.yaml has never been valid, so that no request skips its stages."""
        presets = self.store.snapshot.get(self._pipeline_kind)
        if "pipeline" in presets:
            return presets["pipeline"].stages
        if any(error.kind == self._pipeline_kind.name for error in self.store.snapshot.errors):
            return ()
        return [StageSpec(name) for name in DEFAULT_STAGES]

    async def _create_stages(self, specs: Sequence[StageSpec]) -> list[StageInstance]:
        """Return a stage for each of `specs`: a running one with the same options, or a new one."""
        reusable = list(self._version.stage_instances)
        instances: list[StageInstance] = []
        try:
            for spec in specs:
                instance = next((candidate for candidate in reusable if candidate.spec == spec), None)
                if instance is not None:
                    reusable.remove(instance)
                    instances.append(instance)
                    continue
                instance = StageInstance(spec, self._plugins.create_stage(spec, self.context))
                instances.append(instance)  # before `start`, so that a stage whose start fails is closed too
                await _call_if_defined(instance.stage, "start")
        except Exception:
            for instance in instances:
                self._close_if_unused(instance)
            raise
        return instances

    def acquire(self) -> PipelineVersion:
        """Return the version in force, whose stages stay open until it is `release`d. Raises Unavailable."""
        if not self._version.stage_instances:
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

    def release(self, version: PipelineVersion) -> None:
        """Release a version. After its last reference, the stages that no other version has are closed."""
        version.reference_count -= 1
        if version.reference_count:
            return
        for instance in version.stage_instances:
            instance.reference_count -= 1
            self._close_if_unused(instance)

    def _close_if_unused(self, instance: StageInstance) -> None:
        if not instance.reference_count:
            closing = _call_if_defined(instance.stage, "close")
            task = asyncio.create_task(closing, name=f"close stage {instance.spec.name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self.release(self._version)
        closing = [*self._closing, *(_call_if_defined(provider, "close") for provider in self.providers.values())]
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(error, BaseException):
                log.error("plugin_close_failed", exc_info=error)


async def _call_if_defined(plugin: object, method: str) -> None:
    """Call `start` or `close`, which stages and providers need not have."""
    function = getattr(plugin, method, None)
    if function is not None:
        await function()
