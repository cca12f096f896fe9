"""What there is, as clients are told it: models and presets."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from infraforge_runner.presets import HyperPodPreset
from infraforge_runner.rendering import render
from infraforge_runner.stacks import Stack
from pipeline.presets import ModelPreset
from pipeline.providers.emd import Emd, deploy_command
from pipeline.providers.emd_stacks import Deployment
from pipeline.runtime import Runtime
from pipeline.stages.circuit_breaker import Breaker
from pipeline.store import Change, Snapshot
from server.recent import recall


async def list_models(runtime: Runtime) -> list[dict[str, Any]]:
    """Every model that the presets define, by name."""
    return [await describe_model(runtime, name) for name in sorted(runtime.models)]


async def describe_model(runtime: Runtime, name: str) -> dict[str, Any]:
    """A model as it is now; of one that is gone, that it is."""
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
        "recent": recall(state),
    }


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


async def _deployment(runtime: Runtime, preset: ModelPreset) -> Deployment:
    provider = runtime.providers.get("emd")
    if not isinstance(provider, Emd):
        return Deployment("unknown", reason="the provider 'emd' is not installed here")
    return await provider.deployment(preset)


def _capabilities(preset: ModelPreset) -> dict[str, bool]:
    return {kind: kind in preset.capabilities for kind in ("text", "image", "video", "stream")}


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


def describe_hyperpod_preset(name: str, preset: HyperPodPreset) -> dict[str, Any]:
    """A preset of the catalogue: what it makes where nothing is overridden, and what may be."""
    rendered = render(preset, name, {})
    return {
        "name": name,
        "description": preset.description,
        "summary": {
            "region": rendered.region,
            "stack_name": rendered.stack_name,
            "names": rendered.names,
            "timeout": preset.timeout,
            "serves": preset.serves and preset.serves.model,
        },
        "overrides": {
            override: {
                **msgspec.to_builtins(rule),
                "rule": rule.rule,
                "default": rendered.variables.get(rule.env),
            }
            for override, rule in sorted(preset.overrides.items())
        },
    }


def describe_stack(stack: Stack) -> dict[str, Any]:
    """What stands, as far as we know: our last deploy says so."""
    return {
        "stack_name": stack.stack_name,
        "region": stack.region,
        "preset": stack.preset,
        "state": stack.state,
        "since": stack.since,
        "job_id": stack.job_id,
        "outputs": stack.outputs,
        "serves": stack.serves and stack.serves.model,
    }
