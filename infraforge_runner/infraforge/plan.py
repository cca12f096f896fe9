"""The plan of a dry run: what a live run would do, and what could not be checked without it. Pure.

Configuration, names and difference are always there. Where InfraForge, the CDK, Node and credentials are available,
`select_check_script` also compares the templates, and the output of that script is the job's log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from infraforge_runner.infraforge.presets import SCRIPTS_FOLDER, OverrideValue
from infraforge_runner.infraforge.rendering import ZONE_VARIABLE, has_zonal_forges, resource_names
from infraforge_runner.infraforge.stack_records import StackRecord
from infraforge_runner.jobs.model import JobSpec
from pipeline.masking import MASK, is_secret_variable


class AvailableTools(Struct, frozen=True, kw_only=True):
    """What a dry run can check with. `checkout_problem` is a sentence about InfraForge's checkout; None: it is fine."""

    checkout_problem: str | None
    has_cdk: bool
    has_node: bool
    has_credentials: bool

    @property
    def can_diff(self) -> bool:
        return self.checkout_problem is None and self.has_cdk and self.has_node and self.has_credentials


class LiveCommand(Struct, frozen=True):
    """The command and environment of the live run."""

    command: str
    environment: Mapping[str, str]


class Plan(Struct, frozen=True, kw_only=True):
    """`diff` has a line for each value that is new or different against the configuration that was applied last."""

    config: dict[str, Any]
    diff: list[str]
    command: str
    environment: dict[str, str]
    names: tuple[str, ...]
    unchecked: list[str]


def build_plan(spec: JobSpec, live: LiveCommand, config: dict[str, Any], diff: list[str], unchecked: list[str]) -> Plan:
    """`config` as the live run would have it, its zone placed."""
    return Plan(
        config=config,
        diff=diff,
        command=live.command,
        environment=mask_environment(live.environment),
        names=resource_names(config, spec.region, spec.stack_name),
        unchecked=unchecked,
    )


def select_check_script(spec: JobSpec, tools: AvailableTools) -> Path | None:
    """The script that checks a deploy's plan, in a work directory like the live one's; its exit status is the job's."""
    return SCRIPTS_FOLDER / "diff.sh" if not spec.own_script and tools.can_diff else None


def diff_from_applied(stack: StackRecord | None, config: Mapping[str, Any]) -> list[str]:
    """The difference from the configuration that the stack was last deployed with; all of it where it never was."""
    return diff_configs(None if stack is None or stack.since is None else stack.config, config)


def diff_configs(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """`- path: value` for each removed value, `+ path: value` for each added one, in the order of the configuration."""
    old, new = dict(_flatten(before or {})), dict(_flatten(after))
    lines = []
    for path in [*new, *(path for path in old if path not in new)]:
        if path not in old or path not in new or _format_value(old[path]) != _format_value(new[path]):
            lines += [f"- {path}: {_format_value(old[path])}"] if path in old else []
            lines += [f"+ {path}: {_format_value(new[path])}"] if path in new else []
    return lines


def mask_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the values of variables masked that are named like secrets."""
    return {name: MASK.decode() if is_secret_variable(name) else value for name, value in sorted(environment.items())}


def list_unchecked(spec: JobSpec, tools: AvailableTools) -> list[str]:
    """A sentence for each fact that this machine can't check."""
    return [*_list_missing_tools(spec, tools), *_list_unknown_facts(spec, tools)]


def _list_missing_tools(spec: JobSpec, tools: AvailableTools) -> Iterator[str]:
    if spec.own_script:
        yield f"The preset's own script was not run: only it knows what it does on {spec.action}."
        return
    if tools.checkout_problem is not None:
        yield f"InfraForge did not read the configuration. {tools.checkout_problem}"
    if not tools.has_cdk:
        yield "No template was made: cdk is not on the PATH (npm install -g aws-cdk@2)."
    if not tools.has_node:
        yield "No template was made: node is not on the PATH; InfraForge and the CDK need it."


def _list_unknown_facts(spec: JobSpec, tools: AvailableTools) -> Iterator[str]:
    if not tools.has_credentials:
        yield "AWS was not asked anything: no credentials were found."
        yield f"Whether the stack {spec.stack_name} stands in {spec.region}, and how."
        if (zone := spec.variables.get(ZONE_VARIABLE)) and has_zonal_forges(spec.config):
            yield f"The zone {zone} was not looked up: the configuration has the preset's own."


def list_deploy_unchecked(spec: JobSpec) -> Iterator[str]:
    """A sentence for each thing that only a live deploy will show."""
    if has_zonal_forges(spec.config):
        yield "Whether the account's quotas and the zone's capacity allow these instances."
        yield "Whether the zone can hold EKS's control plane, and whether the names are free in the account."
        yield f"Whether the CDK is bootstrapped in {spec.region} (cdk bootstrap)."


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, OverrideValue | None]]:
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path, value
        return
    for key, child in children:
        yield from _flatten(child, f"{path}.{key}" if path else str(key))


def _format_value(value: OverrideValue | None) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
