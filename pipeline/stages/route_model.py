"""route_model: look up the preset of the requested model, and adapt the parameters to what the model accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from msgspec import Struct

from pipeline.errors import InvalidRequest, Unavailable, UnknownModel
from pipeline.messages import EventStream, Inference, ModelTarget, Parameters
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import NoOptions
from pipeline.stage import Context, Proceed


class RouteModel:
    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        """`refuses`: parameters that are not sent to the model."""

        refuses: tuple[Literal["temperature", "top_p", "stop"], ...] = ()

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._providers = context.providers

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        preset = inference.models.get(inference.model)
        if preset is None:
            raise UnknownModel(f"No preset defines a model {inference.model!r}; GET /api/models lists them.")
        if preset.provider not in self._providers:
            raise Unavailable(
                f"The model {inference.model!r} needs the provider {preset.provider!r}, which is not installed here."
            )
        parameters = fit_parameters(inference.parameters, inference.model, preset)
        return await proceed(
            replace(inference, selected_target=ModelTarget(inference.model, preset), parameters=parameters)
        )


def fit_parameters(parameters: Parameters, model: str, preset: ModelPreset) -> Parameters:
    """The parameters to send to this model. Raises InvalidRequest for a temperature above its maximum."""
    temperature, max_temperature = parameters.temperature, preset.limits.temperature
    if temperature is not None and temperature > max_temperature:
        raise InvalidRequest(
            f"temperature: the model {model!r} takes at most {max_temperature:g}, not {temperature:g}."
        )
    refused = preset.options_of(RouteModel.ModelOptions).refuses
    changes: dict[str, Any] = {name: () if name == "stop" else None for name in refused}
    if parameters.max_tokens is None or parameters.max_tokens > preset.limits.max_tokens:
        changes["max_tokens"] = preset.limits.max_tokens
    return replace(parameters, **changes) if changes else parameters
