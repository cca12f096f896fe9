"""The live stages and providers: made from the presets in force, swapped whole when those change.

A stage lives on over a reload unless its options change. One that was replaced is closed when the last
inference that still uses it has ended.
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
from pipeline.presets import (
    DEFAULT_STAGES,
    MODELS,
    ModelPreset,
    StageSpec,
    UnusablePipeline,
    pipeline_kind,
)
from pipeline.stage import Availability, Context, Pipeline, Provider, Stage
from pipeline.store import Change, Kind, PresetStore
from pipeline.traced import TracedPipeline, TracedProvider

if TYPE_CHECKING:
    from pipeline.otel import Tracing

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Installed:
    """A stage in place, and how many editions hold it."""

    spec: StageSpec
    stage: Stage
    holders: int = 0


@dataclass(eq=False)
class Edition:
    """Presets, and the pipeline that was made from them. What began with one ends with it."""

    models: Mapping[str, ModelPreset]
    pipeline: Pipeline
    installed: Sequence[_Installed]
    holders: int = field(default=1)


class Runtime:
    """Holds the edition in force. `kinds` are further kinds of presets, which others use."""

    def __init__(
        self,
        plugins: Plugins,
        roots: Sequence[Path],
        kinds: Sequence[Kind[Any]] = (),
        tracing: Tracing | None = None,
    ) -> None:
        self._plugins = plugins
        self._pipeline_kind = pipeline_kind(plugins.check_stage)
        self.store = PresetStore(roots, [MODELS, self._pipeline_kind, *kinds])
        self.providers: dict[str, Provider] = {}
        self._tracing = tracing
        self._asked: dict[str, Provider] = {}  # as stages know them: in spans, where there are any
        self.context = Context(self._asked, models=lambda: self._edition.models, tracing=tracing)
        self._edition = Edition({}, Pipeline([]), [])
        self._began = False
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Reads the presets and starts what they name. Raises UnusablePipeline, PluginError."""
        for name, create in self._plugins.providers.items():
            try:
                provider = self.providers[name] = create({}, self.context)
                self._asked[name] = TracedProvider(self._tracing, name, provider) if self._tracing else provider
                await _call(provider, "start")
            except Exception as error:  # a plugin's factory is a stranger's code
                raise PluginError(f"the provider {name!r} can't be started: {error!r}") from error
        await self.reload()
        for fault in self.store.snapshot.faults:
            if isinstance(fault.cause, UnusablePipeline):
                raise UnusablePipeline((), str(fault))

    async def reload(self) -> list[Change]:
        """Brings what changed on disk into force. Returns what changed."""
        changes = self.store.reload()
        for change in changes:
            event = log.warning if change.change == "rejected" else log.info
            event(f"preset {change.change}", kind=change.kind, name=change.name, fault=str(change.fault or "") or None)
        if changes or not self._began:
            self._began = True
            await self._swap()
        return changes

    async def _swap(self) -> None:
        """Puts new presets into force. Where a stage can't be started, the stages that run stay."""
        try:
            installed = await self._install(self._stage_specs())
        except Exception:  # a stage's start is a stranger's code
            log.exception("a stage can't be started; the pipeline stays as it was")
            installed = list(self._edition.installed)
        for item in installed:
            item.holders += 1
        edition = Edition(self.store.snapshot.of(MODELS), self._pipeline_of(installed), installed)
        old, self._edition = self._edition, edition
        self.release(old)

    def _pipeline_of(self, installed: Sequence[_Installed]) -> Pipeline:
        if self._tracing is None:
            return Pipeline([item.stage for item in installed])
        return TracedPipeline(self._tracing, [(item.spec.name, item.stage) for item in installed])

    def _stage_specs(self) -> Sequence[StageSpec]:
        """The stages in force. A pipeline.yaml that is broken from the start lets nothing pass unchecked."""
        presets = self.store.snapshot.of(self._pipeline_kind)
        if "pipeline" in presets:
            return presets["pipeline"].stages
        if any(fault.kind == self._pipeline_kind.name for fault in self.store.snapshot.faults):
            return ()
        return [StageSpec(name) for name in DEFAULT_STAGES]

    async def _install(self, specs: Sequence[StageSpec]) -> list[_Installed]:
        """Stages for `specs`; those that are there already, with the same options, stay."""
        there = list(self._edition.installed)
        installed: list[_Installed] = []
        try:
            for spec in specs:
                item = next((item for item in there if item.spec == spec), None)
                if item is not None:
                    there.remove(item)
                    installed.append(item)
                    continue
                item = _Installed(spec, self._plugins.create_stage(spec, self.context))
                installed.append(item)  # one whose start fails half-way is closed too
                await _call(item.stage, "start")
        except Exception:
            for item in installed:
                self._close_unheld(item)
            raise
        return installed

    def acquire(self) -> Edition:
        """The edition in force, kept alive until it is `release`d."""
        if not self._edition.installed:
            raise Unavailable(
                "No pipeline is in force, so no request can be answered; the server's log says what is wrong with it."
            )
        self._edition.holders += 1
        return self._edition

    @property
    def models(self) -> Mapping[str, ModelPreset]:
        return self._edition.models

    async def availability(self, preset: ModelPreset) -> Availability:
        provider = self.providers.get(preset.provider)
        if provider is None:
            return Availability("unavailable", f"its provider {preset.provider!r} is not installed here")
        try:
            return await provider.availability(preset)
        except ForgelineError as error:
            return Availability("unknown", error.message)
        except Exception:  # a plugin's code: its fault must not hide the other models
            log.exception("a provider can't say whether it is available", provider=preset.provider)
            return Availability("unknown", "its provider failed to say; the server's log has more")

    def release(self, edition: Edition) -> None:
        """Gives an edition back. With its last holder, the stages that nobody else uses are closed."""
        edition.holders -= 1
        if edition.holders:
            return
        for item in edition.installed:
            item.holders -= 1
            self._close_unheld(item)

    def _close_unheld(self, item: _Installed) -> None:
        if not item.holders:
            task = asyncio.create_task(_call(item.stage, "close"), name=f"close stage {item.spec.name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self.release(self._edition)
        closing = [*self._closing, *(_call(provider, "close") for provider in self.providers.values())]
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failed, BaseException):
                log.error("a stage or provider failed to close", exc_info=failed)


async def _call(plugin: object, method: str) -> None:
    """Stages and providers need not have `start` and `close`."""
    function = getattr(plugin, method, None)
    if function is not None:
        await function()
