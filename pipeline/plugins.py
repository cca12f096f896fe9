"""The installed stages and providers: the built-in ones, and those of installed packages.

A package adds its own with entry points that name a factory, `create(options, context)`:

    [options.entry_points]
    forgeline.stages =
        shout = my_package.shout:create
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from pipeline.presets.pipeline import StageSpec
from pipeline.providers import scripted
from pipeline.providers.bedrock import provider as bedrock
from pipeline.providers.emd import provider as emd
from pipeline.providers.local import provider as local
from pipeline.providers.openai import provider as openai
from pipeline.stage import Context, Provider, Stage
from pipeline.stages import (
    circuit_breaker,
    decode_frames,
    fallback,
    fit_frames,
    invoke,
    limit,
    normalize_envelope,
    retry,
    route_model,
)

StageFactory = Callable[[Mapping[str, Any], Context], Stage]
ProviderFactory = Callable[[Mapping[str, Any], Context], Provider]

STAGES: dict[str, StageFactory] = {
    "decode_frames": decode_frames.create,
    "fallback": fallback.create,
    "route_model": route_model.create,
    "fit_frames": fit_frames.create,
    "retry": retry.create,
    "circuit_breaker": circuit_breaker.create,
    "limit": limit.create,
    "invoke": invoke.create,
    "normalize_envelope": normalize_envelope.create,
}

PROVIDERS: dict[str, ProviderFactory] = {
    "bedrock": bedrock.create,
    "emd": emd.create,
    "local": local.create,
    "openai_compatible": openai.create,
    "scripted": scripted.create,
}


class PluginError(Exception):
    """A plugin can't be loaded or started, or its name is in use."""


@dataclass(frozen=True)
class Plugins:
    stages: Mapping[str, StageFactory]
    providers: Mapping[str, ProviderFactory]

    def create_stage(self, spec: StageSpec, context: Context) -> Stage:
        """Raise ValueError for a stage that is not installed or that rejects its options."""
        if spec.name not in self.stages:
            raise ValueError(f"nobody provides a stage {spec.name!r} (there are {', '.join(sorted(self.stages))})")
        try:
            return self.stages[spec.name](spec.options, context)
        except ValueError:
            raise
        except Exception as error:  # a plugin's factory may raise anything on unexpected options
            raise ValueError(f"the stage {spec.name!r} can't be made with these options: {error!r}") from error

    def check_stage(self, spec: StageSpec) -> None:
        self.create_stage(spec, Context())


def load_plugins() -> Plugins:
    """Return the built-in and the installed stages and providers. Raises PluginError."""
    return Plugins(
        stages=_add_installed("forgeline.stages", STAGES),
        providers=_add_installed("forgeline.providers", PROVIDERS),
    )


def _add_installed(group: str, built_in: Mapping[str, Any]) -> dict[str, Any]:
    factories = dict(built_in)
    for entry_point in entry_points(group=group):
        name, value = entry_point.name, entry_point.value
        if name in factories:
            raise PluginError(f"two plugins are named {name!r} in {group}: one of them is {value}")
        try:
            factories[name] = entry_point.load()
        except Exception as error:  # a plugin's module may raise anything when it is imported
            raise PluginError(f"the plugin {name!r} of {group} ({value}) can't be loaded: {error}") from error
    return factories
