"""route_model: the name that was asked for becomes a model's preset, and the request what that model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.errors import InvalidRequest, Unavailable, UnknownModel
from pipeline.messages import Events, Inference, Parameters, Route
from pipeline.presets import ModelPreset
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed


class RouteModel:
    def __init__(self, context: Context) -> None:
        self._providers = context.providers

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        preset = inference.models.get(inference.model)
        if preset is None:
            raise UnknownModel(f"No preset defines a model {inference.model!r}; GET /api/models lists them.")
        if preset.provider not in self._providers:
            raise Unavailable(
                f"The model {inference.model!r} needs the provider {preset.provider!r}, which is not installed here."
            )
        parameters = fit_parameters(inference.parameters, inference.model, preset)
        return await proceed(replace(inference, routed=Route(inference.model, preset), parameters=parameters))


def fit_parameters(asked: Parameters, model: str, preset: ModelPreset) -> Parameters:
    """The parameters that this model is sent. Raises InvalidRequest for a temperature above its maximum."""
    if asked.temperature is not None and asked.temperature > preset.limits.temperature:
        raise InvalidRequest(
            f"temperature: the model {model!r} takes at most {preset.limits.temperature:g}, not {asked.temperature:g}."
        )
    changes: dict[str, Any] = {name: () if name == "stop" else None for name in preset.refuses}
    if asked.max_tokens > preset.limits.max_tokens:
        changes["max_tokens"] = preset.limits.max_tokens
    return replace(asked, **changes) if changes else asked


def create(options: Mapping[str, Any], context: Context) -> RouteModel:
    check(options, NoOptions)
    return RouteModel(context)
