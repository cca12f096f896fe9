"""Models and presets as clients see them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from pipeline.presets.models import ModelPreset
from pipeline.presets.store import PresetChange, PresetSnapshot
from pipeline.runtime import Runtime
from pipeline.stage import Deployment, Deploys, DeploySettings
from server.inference.recent_answers import RecentAnswers

MESSAGE_FIELDS = frozenset({"type", "id", "feed", "seq"})


async def list_models(runtime: Runtime, recent: RecentAnswers) -> list[dict[str, Any]]:
    """Every model that the presets define, by name."""
    return [await describe_model(runtime, recent, name) for name in sorted(runtime.models)]


async def describe_model(runtime: Runtime, recent: RecentAnswers, name: str) -> dict[str, Any]:
    """A model's state now, with what its stages and its provider say. One without a preset is `removed`."""
    preset = runtime.models.get(name)
    if preset is None:
        return {"name": name, "availability": "removed"}
    availability = await runtime.availability(preset)
    return {
        **_described_fields(runtime, name),  # first, so that none of them replaces a field of ours
        "name": name,
        "provider": preset.provider,
        "model": preset.model,
        "capabilities": _capabilities(preset),
        "limits": msgspec.to_builtins(preset.limits),
        "availability": availability.status,
        "reason": availability.reason,
        "recent": recent.list(name),
    }


def _described_fields(runtime: Runtime, name: str) -> dict[str, Any]:
    """What stages and the provider say of a model, without fields that a message of the feed has itself."""
    return {field: value for field, value in runtime.describe(name).items() if field not in MESSAGE_FIELDS}


def list_emd_models(runtime: Runtime) -> list[dict[str, Any]]:
    """The models that EMD can deploy, and how, by name."""
    provider = runtime.providers.get("emd")
    if not isinstance(provider, Deploys):
        return []
    return [
        {
            "name": name,
            "model": preset.model,
            "capabilities": _capabilities(preset),
            "limits": msgspec.to_builtins(preset.limits),
            **msgspec.to_builtins(provider.deploy_settings(preset)),
        }
        for name, preset in _emd_presets(runtime)
    ]


async def list_emd_deployments(runtime: Runtime) -> list[dict[str, Any]]:
    """How the deployment of each of them stands, by name."""
    provider = runtime.providers.get("emd")
    if not isinstance(provider, Deploys):
        return []
    presets = _emd_presets(runtime)
    found = await asyncio.gather(*(provider.deployment(preset) for _, preset in presets))
    return [
        _describe_deployment(name, preset.model, provider.deploy_settings(preset), deployment)
        for (name, preset), deployment in zip(presets, found, strict=True)
    ]


def _describe_deployment(name: str, model: str, settings: DeploySettings, deployment: Deployment) -> dict[str, Any]:
    return {
        "name": name,
        "model": model,
        "tag": settings.tag,
        "region": settings.region,
        "status": deployment.status,
        "stack": deployment.stack,
        "instance": deployment.instance,
        "engine": deployment.engine,
        "service": deployment.service,
        "endpoint": deployment.endpoint or deployment.base_url,
        "reason": deployment.reason,
    }


def _emd_presets(runtime: Runtime) -> list[tuple[str, ModelPreset]]:
    return [(name, runtime.models[name]) for name in sorted(runtime.models) if runtime.models[name].provider == "emd"]


def _capabilities(preset: ModelPreset) -> dict[str, bool]:
    return {kind: kind in preset.capabilities for kind in ("text", "image", "video", "stream")}


def list_presets(snapshot: PresetSnapshot) -> list[dict[str, Any]]:
    """Every active preset, and every rejected file with its error."""
    active = {(kind, name): None for kind, presets in snapshot.presets.items() for name in presets}
    errors = {(preset_error.kind, preset_error.name): str(preset_error) for preset_error in snapshot.errors}
    return [
        {"kind": kind, "name": name, **({"error": error} if error else {})}
        for (kind, name), error in sorted({**active, **errors}.items())
    ]


def describe_change(change: PresetChange) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": change.kind, "name": change.name, "change": change.change}
    if change.error is not None:
        fields["error"] = str(change.error)
    return fields
