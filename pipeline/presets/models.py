"""The preset of a model, `models/NAME.yaml`: the core keys, and those that stages and its provider declare.

docs/PRESETS.md documents every key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pipeline.presets.schema import NonNegativeInt, PositiveInt, SchemaError, validate
from pipeline.presets.store import PresetKind

O = TypeVar("O", bound=Struct)  # noqa: E741 - the options of a plugin

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Capability = Literal["text", "image", "video", "stream"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model accepts: tokens of an answer, frames of a request, bytes and pixels of a frame, bytes of a video."""

    max_tokens: PositiveInt = 4096
    temperature: Annotated[float, Meta(ge=0, le=2)] = 2.0
    frames: NonNegativeInt = 20
    frame_bytes: PositiveInt = 3_932_160
    frame_pixels: PositiveInt = 64_000_000
    video_bytes: PositiveInt = 25_000_000


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds: to connect, until the first token, and without any token in the middle of an answer."""

    connect: Seconds = 5.0
    first_token: Seconds = 120.0
    between_tokens: Seconds = 30.0


class ModelPresetCore(Struct, frozen=True):
    """The keys of every model. Every other key belongs to the stage or the provider that declares it."""

    provider: str
    model: str
    capabilities: tuple[Capability, ...] = ("text", "stream")
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()


class ModelPreset(ModelPresetCore, frozen=True):
    """The core keys, and `options`: one struct of each type that an installed stage or the provider declares."""

    options: Mapping[type[Struct], Struct] = {}

    def options_of(self, kind: type[O]) -> O:
        """Return the options of this type. Raises LookupError if neither a stage nor this provider declares it."""
        options = self.options.get(kind)
        if options is None:
            raise LookupError(
                f"{kind.__qualname__} is the ModelOptions of no installed stage, nor of {self.provider!r}"
            )
        return options  # type: ignore[return-value] # each is stored under its own type


def list_keys(kind: type[Struct]) -> list[str]:
    """The keys of a struct as they are written in a file."""
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def parse_model_preset(
    value: Any, stage_options: Iterable[type[Struct]], provider_options: Mapping[str, type[Struct]]
) -> ModelPreset:
    """Validate the content of `models/NAME.yaml`.

    `stage_options` are the `ModelOptions` of the stages, `provider_options` those of the providers by name. Keys of a
    provider that is not among them are not checked. Raises SchemaError.
    """
    keys = validate(value, dict[str, Any])
    core = _convert(keys, ModelPresetCore)
    kinds = [*stage_options, *filter(None, [provider_options.get(core.provider)])]
    if core.provider in provider_options:
        known = [*list_keys(ModelPresetCore), *(key for kind in kinds for key in list_keys(kind))]
        for key in keys.keys() - set(known):
            raise SchemaError((key,), f"unknown field (known are {', '.join(known)})")
    options = {kind: _convert(keys, kind) for kind in kinds}
    return ModelPreset(core.provider, core.model, core.capabilities, core.limits, core.timeouts, options)


def _convert(keys: Mapping[str, Any], kind: type[O]) -> O:
    return validate({key: keys[key] for key in list_keys(kind) if key in keys}, kind)


def model_preset_kind(parse: Callable[[Any], ModelPreset]) -> PresetKind[ModelPreset]:
    """The preset kind of `models/NAME.yaml`; see `parse_model_preset` for `parse`."""
    return PresetKind("model", "models", parse)
