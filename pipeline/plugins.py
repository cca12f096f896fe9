"""The installed stages and providers: the built-in ones, and those of installed packages.

A package adds its own with entry points that name a factory, usually a class:

    [options.entry_points]
    forgeline.stages =
        shout = my_package.shout:Shout

A factory is called with its options and the context. Its attributes `Options` and `ModelOptions` are structs that
declare its keys (pipeline/stage.py); without `Options` it is given its options as they are written, unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from msgspec import Struct

from pipeline.presets.models import ModelPreset, ModelPresetCore, list_keys, model_preset_kind, parse_model_preset
from pipeline.presets.pipeline import PipelinePreset, parse_pipeline, pipeline_preset_kind
from pipeline.presets.schema import NoOptions, validate
from pipeline.presets.store import PresetKind
from pipeline.providers.bedrock.provider import BedrockProvider
from pipeline.providers.emd.provider import EmdProvider
from pipeline.providers.local.provider import LocalProvider
from pipeline.providers.openai.provider import OpenAICompatibleProvider
from pipeline.providers.scripted import ScriptedProvider
from pipeline.stage import Context, Provider, Stage
from pipeline.stages.circuit_breaker import CircuitBreaker
from pipeline.stages.decode_frames import DecodeFrames
from pipeline.stages.fallback import Fallback
from pipeline.stages.fit_frames import FitFrames
from pipeline.stages.invoke import Invoke
from pipeline.stages.limit import Limit
from pipeline.stages.normalize_envelope import NormalizeEnvelope
from pipeline.stages.retry import Retry
from pipeline.stages.route_model import RouteModel

Factory = Callable[[Any, Context], Any]
StageFactory = Callable[[Any, Context], Stage]
ProviderFactory = Callable[[Any, Context], Provider]

STAGES: dict[str, StageFactory] = {
    "decode_frames": DecodeFrames,
    "fallback": Fallback,
    "route_model": RouteModel,
    "fit_frames": FitFrames,
    "retry": Retry,
    "circuit_breaker": CircuitBreaker,
    "limit": Limit,
    "invoke": Invoke,
    "normalize_envelope": NormalizeEnvelope,
}

PROVIDERS: dict[str, ProviderFactory] = {
    "bedrock": BedrockProvider,
    "emd": EmdProvider,
    "local": LocalProvider,
    "openai_compatible": OpenAICompatibleProvider,
    "scripted": ScriptedProvider,
}


class PluginError(Exception):
    """A plugin can't be loaded or started, its name is in use, or one of its keys is."""


def options_type(factory: Factory) -> type[Any]:
    """The type of its options in pipeline.yaml."""
    declared: type[Any] = getattr(factory, "Options", dict[str, Any])
    return declared


def model_options_type(factory: Factory) -> type[Struct]:
    """The struct whose fields are its keys in models/NAME.yaml."""
    declared: type[Struct] = getattr(factory, "ModelOptions", NoOptions)
    return declared


@dataclass(frozen=True)
class Plugins:
    """Factories by name, and what presets may contain with them. Checking a preset calls no factory."""

    stages: Mapping[str, StageFactory]
    providers: Mapping[str, ProviderFactory]

    @cached_property
    def model_presets(self) -> PresetKind[ModelPreset]:
        return model_preset_kind(self.parse_model_preset)

    @cached_property
    def pipeline_presets(self) -> PresetKind[PipelinePreset]:
        return pipeline_preset_kind(lambda value: parse_pipeline(value, self.stage_options, self.provider_options))

    def check_declarations(self) -> None:
        """Raise PluginError for a declaration that is no struct, and for a key of a model's preset that two claim.

        Two providers may claim the same key, since a preset has only one.
        """
        owners = dict.fromkeys(list_keys(ModelPresetCore), "every model")
        for name, stage_factory in self.stages.items():
            owners |= _claim_keys(f"the stage {name!r}", stage_factory, owners)
        for name, provider_factory in self.providers.items():
            _claim_keys(f"the provider {name!r}", provider_factory, owners)

    def parse_model_preset(self, value: Any) -> ModelPreset:
        """Validate the content of models/NAME.yaml. Raises SchemaError."""
        stages = map(model_options_type, self.stages.values())
        providers = {name: model_options_type(factory) for name, factory in self.providers.items()}
        return parse_model_preset(value, stages, providers)

    def stage_options(self, name: str, options: Mapping[str, Any]) -> Any:
        """The options in pipeline.yaml as the stage declares them. Raises LookupError, SchemaError."""
        return validate(options, options_type(_find("stage", name, self.stages)))

    def provider_options(self, name: str, options: Mapping[str, Any]) -> Any:
        """The same for a provider."""
        return validate(options, options_type(_find("provider", name, self.providers)))

    def create_stage(self, name: str, options: Mapping[str, Any], context: Context) -> Stage:
        """Raises LookupError, SchemaError, and what the plugin raises."""
        return self.stages[name](self.stage_options(name, options), context)

    def create_provider(self, name: str, options: Mapping[str, Any], context: Context) -> Provider:
        """Raises as `create_stage` does."""
        return self.providers[name](self.provider_options(name, options), context)


def _find(noun: str, name: str, factories: Mapping[str, Factory]) -> Factory:
    if name not in factories:
        raise LookupError(f"nobody provides a {noun} {name!r} (there are {', '.join(sorted(factories))})")
    return factories[name]


def load_plugins() -> Plugins:
    """Return the built-in and the installed stages and providers. Raises PluginError."""
    plugins = Plugins(
        stages=_add_installed("forgeline.stages", STAGES),
        providers=_add_installed("forgeline.providers", PROVIDERS),
    )
    plugins.check_declarations()
    return plugins


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


def _claim_keys(claimant: str, factory: Factory, owners: Mapping[str, str]) -> dict[str, str]:
    for attribute, declared in _declarations(factory):
        if not (isinstance(declared, type) and issubclass(declared, Struct)):
            raise PluginError(f"{claimant} can't be used: its {attribute} has to be a msgspec.Struct")
    keys = list_keys(model_options_type(factory))
    for key in keys:
        if key in owners:
            raise PluginError(f"{claimant} declares the key {key!r} of models/NAME.yaml, which {owners[key]} has")
    return dict.fromkeys(keys, claimant)


def _declarations(factory: Factory) -> Iterator[tuple[str, Any]]:
    for attribute in ("Options", "ModelOptions"):
        if hasattr(factory, attribute):
            yield attribute, getattr(factory, attribute)
