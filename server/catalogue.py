"""What there is, as clients are told it: models and presets."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.presets import ModelPreset
from pipeline.runtime import Runtime
from pipeline.store import Change, Snapshot


async def list_models(runtime: Runtime) -> list[dict[str, Any]]:
    """Every model that the presets define, by name."""
    return [await _describe_model(runtime, name, preset) for name, preset in sorted(runtime.models.items())]


async def describe_changed_model(runtime: Runtime, change: Change) -> dict[str, Any]:
    """A model as it is now; of one that is gone, its name."""
    preset = runtime.models.get(change.name)
    if preset is None:
        return {"name": change.name, "availability": "removed"}
    return await _describe_model(runtime, change.name, preset)


async def _describe_model(runtime: Runtime, name: str, preset: ModelPreset) -> dict[str, Any]:
    availability = await runtime.availability(preset)
    return {
        "name": name,
        "provider": preset.provider,
        "model": preset.model,
        "capabilities": {kind: kind in preset.capabilities for kind in ("text", "image", "video", "stream")},
        "limits": msgspec.to_builtins(preset.limits),
        "availability": availability.status,
        "reason": availability.reason,
    }


def list_presets(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every preset in force, and every file that is not, with what is wrong with it."""
    found = {(kind, name): None for kind, presets in snapshot.presets.items() for name in presets}
    faults = {(fault.kind, fault.name): str(fault) for fault in snapshot.faults}
    return [
        {"kind": kind, "name": name, **({"error": error} if error else {})}
        for (kind, name), error in sorted({**found, **faults}.items())
    ]


def describe_change(change: Change) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": change.kind, "name": change.name, "change": change.change}
    if change.fault is not None:
        told["error"] = str(change.fault)
    return told
