"""What a dry run finds: what a live one would do, to what, and what could not be checked without doing it. Pure.

The configuration, the names and the difference are always there. Where InfraForge, the CDK, Node and credentials are
there too, `check_script` compares the templates as well, and its output is the job's log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from infraforge_runner.job import Spec
from infraforge_runner.presets import SCRIPTS, Value
from infraforge_runner.rendering import AVAILABILITY_ZONE, names, needs_place
from infraforge_runner.script import SECRET_NAMES
from infraforge_runner.stacks import Stack

MASK = "***"


class Machine(Struct, frozen=True, kw_only=True):
    """What a dry run has found to check with. `checkout` says what is wrong with InfraForge's; None: nothing."""

    checkout: str | None
    has_cdk: bool
    has_node: bool
    has_credentials: bool

    @property
    def can_compare(self) -> bool:
        return self.checkout is None and self.has_cdk and self.has_node and self.has_credentials


class Run(Struct, frozen=True):
    """How a live run would start."""

    command: str
    environment: Mapping[str, str]


class Plan(Struct, frozen=True, kw_only=True):
    """`diff` has a line for each value that the stack's last applied configuration has otherwise, or has not."""

    config: dict[str, Any]
    diff: list[str]
    command: str
    environment: dict[str, str]
    names: tuple[str, ...]
    unchecked: list[str]


def make_plan(spec: Spec, run: Run, config: dict[str, Any], standing: Stack | None, unchecked: list[str]) -> Plan:
    """`config` as the live run would have it, its zone placed; `standing` is what is known of the stack."""
    applied = None if standing is None or standing.since is None else standing.config
    return Plan(
        config=config,
        diff=[] if spec.action == "destroy" else difference(applied, config),
        command=run.command,
        environment=masked(run.environment),
        names=names(config, spec.region, spec.stack_name),
        unchecked=unchecked,
    )


def check_script(spec: Spec, machine: Machine) -> Path | None:
    """The script that a dry run can run, in a work directory like the live one's; its exit status is the job's."""
    return SCRIPTS / "diff.sh" if spec.action == "deploy" and not spec.own_script and machine.can_compare else None


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """`- path: value` for what goes, `+ path: value` for what comes, in the order of the configuration."""
    old, new = dict(_leaves(before or {})), dict(_leaves(after))
    lines = []
    for path in [*new, *(path for path in old if path not in new)]:
        if path not in old or path not in new or _spell(old[path]) != _spell(new[path]):
            lines += [f"- {path}: {_spell(old[path])}"] if path in old else []
            lines += [f"+ {path}: {_spell(new[path])}"] if path in new else []
    return lines


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """The values of variables that are named like secrets don't show."""
    return {
        name: MASK if any(part in name.upper() for part in SECRET_NAMES) else value
        for name, value in sorted(environment.items())
    }


def unchecked(spec: Spec, machine: Machine) -> list[str]:
    """A sentence for each thing that this machine can't check, or that only the live run will show."""
    return [*_not_there(spec, machine), *_not_known(spec, machine)]


def _not_there(spec: Spec, machine: Machine) -> Iterator[str]:
    if spec.own_script:
        yield f"The preset's own script was not run: only it knows what it does on {spec.action}."
        return
    if machine.checkout is not None:
        yield f"InfraForge did not read the configuration. {machine.checkout}"
    if not machine.has_cdk:
        yield "No template was made: cdk is not on the PATH (npm install -g aws-cdk@2)."
    if not machine.has_node:
        yield "No template was made: node is not on the PATH; InfraForge and the CDK need it."


def _not_known(spec: Spec, machine: Machine) -> Iterator[str]:
    if not machine.has_credentials:
        yield "AWS was not asked anything: no credentials were found."
        yield f"Whether the stack {spec.stack_name} stands in {spec.region}, and how."
        if (zone := spec.variables.get(AVAILABILITY_ZONE)) and needs_place(spec.config):
            yield f"The zone {zone} was not looked up: the configuration has the preset's own."
    if spec.action == "deploy" and needs_place(spec.config):
        yield "Whether the account's quotas and the zone's capacity allow these instances."
        yield "Whether the zone can hold EKS's control plane, and whether the names are free in the account."
        yield f"Whether the CDK is bootstrapped in {spec.region} (cdk bootstrap)."


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Value | None]]:
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path, value
        return
    for key, child in children:
        yield from _leaves(child, f"{path}.{key}" if path else str(key))


def _spell(value: Value | None) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
