"""Models and presets as clients see them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.errors import Cancelled
from pipeline.messages import Failure, Result
from pipeline.presets.models import ModelPreset
from pipeline.presets.store import PresetChange, PresetSnapshot
from pipeline.providers.emd.deployments import EmdDeployment
from pipeline.providers.emd.provider import EmdProvider, deploy_command
from pipeline.runtime import Runtime
from pipeline.stages.circuit_breaker import Breaker

MAX_RECENT = 30  # answers of each model that are kept
ModelState = dict[str, Any]  # `context.state(model)`


async def list_models(runtime: Runtime) -> list[dict[str, Any]]:
    """Every model that the presets define, by name."""
    return [await describe_model(runtime, name) for name in sorted(runtime.models)]


async def describe_model(runtime: Runtime, name: str) -> dict[str, Any]:
    """A model's state now. One without a preset has the availability `removed`."""
    preset = runtime.models.get(name)
    if preset is None:
        return {"name": name, "availability": "removed"}
    availability = await runtime.availability(preset)
    state = runtime.context.state(name)
    breaker: Breaker = state.get("breaker", Breaker())
    return {
        "name": name,
        "provider": preset.provider,
        "model": preset.model,
        "capabilities": _capabilities(preset),
        "limits": msgspec.to_builtins(preset.limits),
        "availability": availability.status,
        "reason": availability.reason,
        "breaker": breaker.state(preset.breaker),
        "recent": list(state.get("recent", ())),
    }


def record_outcome(state: ModelState, outcome: Result | Failure) -> None:
    """Keep how an answer ended, for the console's plots. One that was cancelled says nothing about its model."""
    if isinstance(outcome, Failure) and isinstance(outcome.error, Cancelled):
        return
    metadata: Mapping[str, Any] = outcome.envelope["metadata"] if isinstance(outcome, Result) else {}
    state.setdefault("recent", deque(maxlen=MAX_RECENT)).append(
        {
            "ok": isinstance(outcome, Result),
            "time_to_first_token_ms": metadata.get("time_to_first_token_ms"),
            "duration_ms": metadata.get("duration_ms"),
        }
    )


def list_emd_models(runtime: Runtime) -> list[dict[str, Any]]:
    """The models that EMD can deploy, and how, by name."""
    return [
        {
            "name": name,
            "model": preset.model,
            "tag": preset.tag,
            "region": preset.region,
            "capabilities": _capabilities(preset),
            "limits": msgspec.to_builtins(preset.limits),
            "instance": preset.deploy and preset.deploy.instance,
            "engine": preset.deploy and preset.deploy.engine,
            "service": preset.deploy and preset.deploy.service,
            "command": deploy_command(preset),
        }
        for name, preset in _emd_presets(runtime)
    ]


async def list_emd_deployments(runtime: Runtime) -> list[dict[str, Any]]:
    """How the deployment of each of them stands, by name."""
    presets = _emd_presets(runtime)
    found = await asyncio.gather(*(_deployment(runtime, preset) for _, preset in presets))
    return [
        {
            "name": name,
            "model": preset.model,
            "tag": preset.tag,
            "region": preset.region,
            "status": one.status,
            "stack": one.stack,
            "instance": one.instance,
            "engine": one.engine,
            "service": one.service,
            "endpoint": one.endpoint or one.base_url,
            "reason": one.reason,
        }
        for (name, preset), one in zip(presets, found, strict=True)
    ]


def _emd_presets(runtime: Runtime) -> list[tuple[str, ModelPreset]]:
    return [(name, runtime.models[name]) for name in sorted(runtime.models) if runtime.models[name].provider == "emd"]


async def _deployment(runtime: Runtime, preset: ModelPreset) -> EmdDeployment:
    provider = runtime.providers.get("emd")
    if not isinstance(provider, EmdProvider):
        return EmdDeployment("unknown", reason="the provider 'emd' is not installed here")
    return await provider.deployment(preset)


def _capabilities(preset: ModelPreset) -> dict[str, bool]:
    return {kind: kind in preset.capabilities for kind in ("text", "image", "video", "stream")}


def list_presets(snapshot: PresetSnapshot) -> list[dict[str, Any]]:
    """Every active preset, and every rejected file with its error."""
    found = {(kind, name): None for kind, presets in snapshot.presets.items() for name in presets}
    faults = {(fault.kind, fault.name): str(fault) for fault in snapshot.errors}
    return [
        {"kind": kind, "name": name, **({"error": error} if error else {})}
        for (kind, name), error in sorted({**found, **faults}.items())
    ]


def describe_change(change: PresetChange) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": change.kind, "name": change.name, "change": change.change}
    if change.error is not None:
        fields["error"] = str(change.error)
    return fields
