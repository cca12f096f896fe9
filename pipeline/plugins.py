"""The stages and providers there are: the built-in ones first, then those of installed packages, by one door.

A package adds its own by entry points that name a factory, `create(options, context)`:

    [options.entry_points]
    forgeline.stages =
        shout = my_package.shout:create
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from pipeline.presets import StageSpec
from pipeline.providers import bedrock, emd, local, openai_compatible, scripted
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
    "limit": limit.create,
    "circuit_breaker": circuit_breaker.create,
    "retry": retry.create,
    "invoke": invoke.create,
    "normalize_envelope": normalize_envelope.create,
}

PROVIDERS: dict[str, ProviderFactory] = {
    "bedrock": bedrock.create,
    "emd": emd.create,
    "local": local.create,
    "openai_compatible": openai_compatible.create,
    "scripted": scripted.create,
}


class PluginError(Exception):
    """A plugin that can't be loaded, or that takes a name which is taken."""


@dataclass(frozen=True)
class Plugins:
    stages: Mapping[str, StageFactory]
    providers: Mapping[str, ProviderFactory]

    def create_stage(self, spec: StageSpec, context: Context) -> Stage:
        """Raises ValueError for a stage that nobody provides, or that refuses its options."""
        if spec.name not in self.stages:
            raise ValueError(f"nobody provides a stage {spec.name!r} (there are {', '.join(sorted(self.stages))})")
        try:
            return self.stages[spec.name](spec.options, context)
        except ValueError:
            raise
        except Exception as error:  # whatever a stranger's factory does with options that it does not expect
            raise ValueError(f"the stage {spec.name!r} can't be made with these options: {error!r}") from error

    def check_stage(self, spec: StageSpec) -> None:
        self.create_stage(spec, Context())


def load() -> Plugins:
    """All that is installed. Raises PluginError."""
    return Plugins(
        stages=_with_installed("forgeline.stages", STAGES),
        providers=_with_installed("forgeline.providers", PROVIDERS),
    )


def _with_installed(group: str, built_in: Mapping[str, Any]) -> dict[str, Any]:
    factories = dict(built_in)
    for point in entry_points(group=group):
        if point.name in factories:
            raise PluginError(f"two plugins are named {point.name!r} in {group}: one of them is {point.value}")
        try:
            factories[point.name] = point.load()
        except Exception as error:  # whatever a stranger's module does when it is imported
            raise PluginError(
                f"the plugin {point.name!r} of {group} ({point.value}) can't be loaded: {error}"
            ) from error
    return factories
