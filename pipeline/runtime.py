"""The live stages and providers: made from the presets in force, swapped whole when those change.

A stage lives on over a reload unless its options change. One that was replaced is closed when the last
inference that still uses it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from pipeline.errors import ForgelineError, Unavailable
from pipeline.plugins import Plugins
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

    def __init__(self, plugins: Plugins, roots: Sequence[Path], kinds: Sequence[Kind[Any]] = ()) -> None:
        self._plugins = plugins
        self._pipeline_kind = pipeline_kind(plugins.check_stage)
        self.store = PresetStore(roots, [MODELS, self._pipeline_kind, *kinds])
        self.providers: dict[str, Provider] = {}
        self.context = Context(self.providers)
        self._edition = Edition({}, Pipeline([]), [])
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Reads the presets and starts what they name. Raises UnusablePipeline."""
        for name, create in self._plugins.providers.items():
            self.providers[name] = create({}, self.context)
            await _call(self.providers[name], "start")
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
        if changes or not self._edition.installed:
            await self._swap()
        return changes

    async def _swap(self) -> None:
        installed = await self._install(self._stage_specs())
        for item in installed:
            item.holders += 1
        old, self._edition = (
            self._edition,
            Edition(self.store.snapshot.of(MODELS), Pipeline([item.stage for item in installed]), installed),
        )
        self.release(old)

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
        installed = []
        for spec in specs:
            item = next((item for item in there if item.spec == spec), None)
            if item is not None:
                there.remove(item)
            else:
                item = _Installed(spec, self._plugins.create_stage(spec, self.context))
                await _call(item.stage, "start")
            installed.append(item)
        return installed

    def acquire(self) -> Edition:
        """The edition in force, kept alive until it is `release`d."""
        if not self._edition.installed:
            raise Unavailable("pipeline.yaml is broken, so no request can be answered; the server's log says where.")
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

    def release(self, edition: Edition) -> None:
        """Gives an edition back. With its last holder, the stages that nobody else uses are closed."""
        edition.holders -= 1
        if edition.holders:
            return
        for item in edition.installed:
            item.holders -= 1
            if not item.holders:
                task = asyncio.create_task(_call(item.stage, "close"), name=f"close stage {item.spec.name}")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self.release(self._edition)
        await asyncio.gather(*self._closing, return_exceptions=True)
        for provider in self.providers.values():
            await _call(provider, "close")


async def _call(plugin: object, method: str) -> None:
    """Stages and providers need not have `start` and `close`."""
    function = getattr(plugin, method, None)
    if function is not None:
        await function()
