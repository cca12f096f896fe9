"""HyperPod presets and stacks as clients see them."""

from __future__ import annotations

from typing import Any

import msgspec

from infraforge_runner.infraforge.presets import HyperPodPreset
from infraforge_runner.infraforge.rendering import render
from infraforge_runner.infraforge.stack_records import StackRecord


def describe_hyperpod_preset(name: str, preset: HyperPodPreset) -> dict[str, Any]:
    """A preset: what it renders to without overrides, and the overrides that it declares."""
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
                "rule": rule.constraint,
                "default": rendered.variables.get(rule.env),
            }
            for override, rule in sorted(preset.overrides.items())
        },
    }


def describe_stack(stack: StackRecord) -> dict[str, Any]:
    """A stack, as its record has it: Forgeline's own jobs write that."""
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
