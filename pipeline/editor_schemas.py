"""JSON Schemas by which editors check presets, composed from what the installed stages and providers declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.plugins import Plugins, model_options_type, options_type
from pipeline.presets.models import ModelPresetCore, list_keys
from pipeline.presets.pipeline import PipelineFile

Schema = dict[str, Any]


class _Composer:
    """Makes schemas that share one set of definitions."""

    def __init__(self, types: Iterable[type[Any]]) -> None:
        types = list(dict.fromkeys(types))
        schemas, self.definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
        self._schemas = dict(zip(types, schemas, strict=True))

    def schema_of(self, kind: type[Any]) -> Schema:
        """The schema of this type; a reference, if it is a struct."""
        return self._schemas[kind]

    def take(self, kind: type[Struct]) -> Schema:
        """The schema of a struct, which is removed from the definitions."""
        name = self._schemas[kind]["$ref"].removeprefix("#/$defs/")
        schema: Schema = self.definitions.pop(name)
        return schema


def model_schema(plugins: Plugins) -> Schema:
    """The schema of models/NAME.yaml. The keys of an installed provider are known only beside its name."""
    common: list[type[Struct]] = [ModelPresetCore, *map(model_options_type, plugins.stages.values())]
    providers = {name: model_options_type(factory) for name, factory in plugins.providers.items()}
    composer = _Composer([*common, *providers.values()])
    structs = {kind: composer.take(kind) for kind in dict.fromkeys([*common, *providers.values()])}
    common_keys = [key for kind in common for key in list_keys(kind)]
    return {
        "title": "ModelPreset",
        "type": "object",
        "properties": {key: value for kind in common for key, value in structs[kind]["properties"].items()},
        "required": [key for kind in common for key in structs[kind]["required"]],
        "allOf": [
            {
                "if": {"properties": {"provider": {"const": name}}, "required": ["provider"]},
                "then": {
                    "properties": structs[kind]["properties"],
                    "required": structs[kind]["required"],
                    "propertyNames": {"enum": [*common_keys, *list_keys(kind)]},
                },
            }
            for name, kind in providers.items()
        ],
        "$defs": composer.definitions,
    }


def pipeline_schema(plugins: Plugins) -> Schema:
    """The schema of pipeline.yaml: the names of the installed stages and providers, and the options of each."""
    stages, providers = _map_options(plugins.stages), _map_options(plugins.providers)
    composer = _Composer([PipelineFile, *stages.values(), *providers.values()])
    schema = composer.take(PipelineFile)
    one_stage = {**_named_options(stages, composer), "minProperties": 1, "maxProperties": 1}
    schema["properties"] = {
        "stages": {"type": "array", "items": {"anyOf": [{"enum": list(stages)}, one_stage]}},
        "providers": _named_options(providers, composer),
    }
    return {**schema, "$defs": composer.definitions}


def _map_options(factories: Mapping[str, Callable[..., Any]]) -> dict[str, type[Any]]:
    return {name: options_type(factory) for name, factory in factories.items()}


def _named_options(options: Mapping[str, type[Any]], composer: _Composer) -> Schema:
    properties = {name: composer.schema_of(kind) for name, kind in options.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}
