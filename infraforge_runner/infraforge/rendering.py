"""Renders a preset and a request's overrides to the configuration that InfraForge reads. Pure: no file, no network.

Overrides are recognised by their variables, whatever a preset calls them: AWS_REGION, STACK_NAME, CLUSTER_TAG,
AVAILABILITY_ZONE. A preset without a configuration of InfraForge's is rendered too: it has its own scripts.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from infraforge_runner.infraforge.config import (
    ZONAL_FORGES,
    append_suffix_to_names,
    hyperpod_cluster_name,
    is_infraforge_config,
    list_enabled_instances,
    list_instances,
    set_stack_name,
    set_zone,
)
from infraforge_runner.infraforge.presets import HyperPodPreset, OverrideValue, RegionName, parse_preset, resolve_path
from pipeline.errors import InvalidRequest
from pipeline.presets.schema import SchemaError, validate
from pipeline.presets.store import PresetKind

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
STACK_NAME_VARIABLE = "STACK_NAME"
CLUSTER_TAG_VARIABLE = "CLUSTER_TAG"
ZONE_VARIABLE = "AVAILABILITY_ZONE"

_STACK_PATTERN = re.compile(r"[A-Za-z][-A-Za-z0-9]*")
_MAX_STACK_CHARS = 128
_CLUSTER_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_MAX_CLUSTER_CHARS = 63
_EKS_PATTERN = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]*")
_MAX_EKS_CHARS = 100
_MAX_ROLE_CHARS = 64
_MAX_POLICY_CHARS = 128


class RenderedStack(Struct, frozen=True):
    """What a job deploys or destroys. `variables` are the scripts'; `names` those of the resources in the account."""

    config: dict[str, Any]
    region: str
    stack_name: str
    variables: dict[str, str]
    names: tuple[str, ...]


def render(preset: HyperPodPreset, preset_name: str, values: Mapping[str, OverrideValue]) -> RenderedStack:
    """`values` are the request's overrides, as `preset.validate_overrides` returns them. Raises InvalidRequest."""
    overrides = _RequestOverrides(preset, values)
    config = copy.deepcopy(preset.config)
    default_stack_name = _default_stack_name(config, preset_name)
    _apply_overrides(config, preset, values)
    region = overrides.region()
    overrides.validate_zone(region)
    tag = overrides.get(CLUSTER_TAG_VARIABLE)
    stack_name = overrides.get(STACK_NAME_VARIABLE) or (f"{default_stack_name}-{tag}" if tag else default_stack_name)
    # A stack name that extends the preset's own one means the same as a tag that would give that name.
    suffix = tag or stack_name.removeprefix(default_stack_name).lstrip("-")
    set_stack_name(config, stack_name)
    if suffix:
        append_suffix_to_names(config, suffix)
    _validate_names(config, region, stack_name, overrides)
    return RenderedStack(
        config, region, stack_name, overrides.variables(region, stack_name), resource_names(config, region, stack_name)
    )


def parse_renderable_preset(value: Any) -> HyperPodPreset:
    """A preset from a file's content, which renders without any override. Raises SchemaError."""
    preset = parse_preset(value)
    try:
        render(preset, "", {})
    except InvalidRequest as error:
        raise SchemaError(("config",), error.message.removeprefix("config: ")) from error
    return preset


HYPERPOD_PRESETS: PresetKind[HyperPodPreset] = PresetKind("hyperpod", "hyperpod", parse_renderable_preset)


def resource_names(config: Mapping[str, Any], region: str, stack_name: str) -> tuple[str, ...]:
    """The kinds and names of the resources that a deploy of this configuration creates and a destroy deletes."""
    names = [f"CloudFormation stack {stack_name}"]
    if not is_infraforge_config(config):
        return tuple(names)
    for eks in list_enabled_instances(config, "eks"):
        names += [f"EKS cluster {eks.id}", *(f"{kind} {name}" for kind, name in _names_after_eks(eks.id, region))]
        if key := eks.get("keyName"):
            system = "windows" if eks.get("osType") == "windows" else "linux"
            names.append(f"EC2 key pair {key}-{system}-{region}")
        if eks.get("prometheusStackVersion"):
            names.append(f"Secrets Manager secret {stack_name}-grafana-password")
    for hyperpod in list_enabled_instances(config, "hyperpod"):
        names.append(f"HyperPod cluster {hyperpod_cluster_name(hyperpod)}")
    names.append(f"IAM policy {_licensing_policy_name(stack_name, region)}")
    return tuple(names)


def place_in_zone(config: Mapping[str, Any], zone: str, zones: Sequence[str]) -> dict[str, Any]:
    """The configuration with the nodes, the file systems and the control plane in this zone.

    `zones` are the region's, in the order of EC2's DescribeAvailabilityZones: InfraForge counts them from 1. Raises
    InvalidRequest for a zone that is not among them.
    """
    if zone not in zones:
        raise InvalidRequest(f"This account has no availability zone {zone}; it has: {', '.join(zones)}.")
    result: dict[str, Any] = copy.deepcopy(dict(config))
    set_zone(result, zones.index(zone) + 1, len(zones))
    return result


def overrides_region(preset: HyperPodPreset, values: Mapping[str, OverrideValue]) -> bool:
    """Whether the request chooses the region, and not the preset."""
    return any(_RequestOverrides(preset, values).get(variable) for variable in REGION_VARIABLES)


def has_zonal_forges(config: Mapping[str, Any]) -> bool:
    """Whether a zone's name has to become an index, which takes a query to AWS."""
    return any(list_instances(config, forge) for forge in ZONAL_FORGES)


class _RequestOverrides:
    """The values of a request's overrides, by variable."""

    def __init__(self, preset: HyperPodPreset, values: Mapping[str, OverrideValue]) -> None:
        self._preset = preset
        self._values = values
        self._name_by_variable = {rule.env: name for name, rule in preset.overrides.items()}

    def get(self, variable: str) -> str | None:
        value = self._values.get(self._name_by_variable.get(variable, ""))
        return None if value is None else _format_value(value)

    def field_name(self, variable: str) -> str:
        """The override's field in a request's body."""
        return f"overrides.{self._name_by_variable[variable]}"

    def declares(self, variable: str) -> bool:
        return variable in self._name_by_variable

    def region(self) -> str:
        for variable in REGION_VARIABLES:
            if region := self.get(variable):
                try:
                    return validate(region, RegionName)
                except SchemaError as error:
                    raise InvalidRequest(f"{self.field_name(variable)}: {region} is no AWS region.") from error
        return self._preset.region

    def validate_zone(self, region: str) -> None:
        zone = self.get(ZONE_VARIABLE)
        if zone and not re.fullmatch(rf"{re.escape(region)}[a-z-].*", zone):
            raise InvalidRequest(
                f"{self.field_name(ZONE_VARIABLE)}: {zone} is no zone of {region}; its zones begin with {region}, "
                f"such as {region}a. Give the region that the zone is in as well, or another zone."
            )

    def variables(self, region: str, stack_name: str) -> dict[str, str]:
        variables = dict.fromkeys(REGION_VARIABLES, region)
        for name, rule in self._preset.overrides.items():
            value = self._values.get(name, _read_default(self._preset.config, rule.sets))
            if value is not None and rule.env not in variables:
                variables[rule.env] = _format_value(value)
        if self.declares(STACK_NAME_VARIABLE):
            variables[STACK_NAME_VARIABLE] = stack_name
        return variables


def _default_stack_name(config: Mapping[str, Any], preset_name: str) -> str:
    section = config.get("global")
    name = section.get("stackName") if isinstance(section, dict) else None
    return name if isinstance(name, str) and name else "forgeline-" + re.sub(r"[^A-Za-z0-9-]", "-", preset_name)


def _apply_overrides(config: dict[str, Any], preset: HyperPodPreset, values: Mapping[str, OverrideValue]) -> None:
    for name, value in values.items():
        for target in preset.overrides[name].sets:
            parent, key = resolve_path(config, target)
            parent[key] = value


def _read_default(config: Mapping[str, Any], sets: Sequence[str]) -> OverrideValue | None:
    if not sets:
        return None
    parent, key = resolve_path(config, sets[0])
    value = parent.get(key) if isinstance(parent, dict) else parent[key]
    return value if isinstance(value, str | int | bool) else None


def _format_value(value: OverrideValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names_after_eks(eks: str, region: str) -> list[tuple[str, str]]:
    return [
        ("IAM role", f"KarpenterNodeRole-{eks}-{region}"),
        ("IAM role", f"KarpenterControllerRole-{eks}-{region}"),
        ("IAM instance profile", f"KarpenterNodeRole-{eks}-{region}"),
        ("IAM policy", f"KarpenterControllerPolicy-{eks}-{region}"),
        ("EC2 launch template", f"{eks}-default-node-template"),
    ]


def _licensing_policy_name(stack_name: str, region: str) -> str:
    return f"{stack_name}-DCVLicensingPolicy-{region}"


def _validate_names(config: Mapping[str, Any], region: str, stack_name: str, overrides: _RequestOverrides) -> None:
    """Raise InvalidRequest for a name that AWS would reject, some of them after half an hour."""
    stack = _NameValidator(overrides, (STACK_NAME_VARIABLE, CLUSTER_TAG_VARIABLE))
    stack.validate("the CloudFormation stack", stack_name, _MAX_STACK_CHARS, _STACK_PATTERN)
    if not is_infraforge_config(config):
        return
    stack.validate("the IAM policy", _licensing_policy_name(stack_name, region), _MAX_POLICY_CHARS)
    clusters = _NameValidator(overrides, (CLUSTER_TAG_VARIABLE, STACK_NAME_VARIABLE))
    for eks in list_enabled_instances(config, "eks"):
        clusters.validate("the EKS cluster", eks.id, _MAX_EKS_CHARS, _EKS_PATTERN)
        for kind, name in _names_after_eks(eks.id, region):
            if kind == "IAM role":
                clusters.validate(f"the {kind}", name, _MAX_ROLE_CHARS)
    for hyperpod in list_enabled_instances(config, "hyperpod"):
        clusters.validate("the HyperPod cluster", hyperpod_cluster_name(hyperpod), _MAX_CLUSTER_CHARS, _CLUSTER_PATTERN)


class _NameValidator:
    """Validates names that are made from the first of these overrides' variables that a request sets."""

    def __init__(self, overrides: _RequestOverrides, variables: Sequence[str]) -> None:
        self._overrides = overrides
        self._preferred_variable = variables[0]
        self._variable = next((variable for variable in variables if overrides.get(variable)), None)

    def validate(self, what: str, name: str, max_chars: int, pattern: re.Pattern[str] | None = None) -> None:
        if len(name) > max_chars:
            raise InvalidRequest(
                f"{self._field_name}: {what} would be {name}, {len(name)} characters; AWS takes {max_chars}. "
                f"{self._suggest_shorter_name(len(name) - max_chars)}"
            )
        if pattern is not None and not pattern.fullmatch(name):
            raise InvalidRequest(f"{self._field_name}: {what} would be {name}; AWS takes only {pattern.pattern}.")

    @property
    def _field_name(self) -> str:
        return "config" if self._variable is None else self._overrides.field_name(self._variable)

    def _suggest_shorter_name(self, excess: int) -> str:
        if self._variable is None:
            return "Give shorter names in the preset."
        max_chars = len(self._overrides.get(self._variable) or "") - excess
        suggestions = [
            f"choose one of at most {max_chars} characters" if max_chars > 0 else "give shorter names in the preset"
        ]
        if self._variable == STACK_NAME_VARIABLE != self._preferred_variable and self._overrides.declares(
            CLUSTER_TAG_VARIABLE
        ):
            tag = self._overrides.field_name(CLUSTER_TAG_VARIABLE)
            suggestions.append(f"or give {tag} as well, which the clusters are then named after")
        sentence = ", ".join(suggestions)
        return f"{sentence[:1].upper()}{sentence[1:]}."
