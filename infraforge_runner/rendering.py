"""From a preset and the values of a request to the configuration that InfraForge reads. Pure: no file, no network.

Overrides are known by their variables, whatever a preset calls them: AWS_REGION, STACK_NAME, CLUSTER_TAG,
AVAILABILITY_ZONE. A preset without a configuration of InfraForge's is rendered too: it has its own scripts.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from infraforge_runner import forges
from infraforge_runner.presets import REGION, HyperPodPreset, Value, find, parse
from pipeline.errors import InvalidRequest
from pipeline.schema import SchemaError, check
from pipeline.store import Kind

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
STACK_NAME = "STACK_NAME"
CLUSTER_TAG = "CLUSTER_TAG"
AVAILABILITY_ZONE = "AVAILABILITY_ZONE"

_STACK = re.compile(r"[A-Za-z][-A-Za-z0-9]*")
_STACK_LENGTH = 128
_CLUSTER = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_CLUSTER_LENGTH = 63
_EKS = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]*")
_EKS_LENGTH = 100
_ROLE_LENGTH = 64
_POLICY_LENGTH = 128


class Rendered(Struct, frozen=True):
    """What a job does, and to what. `variables` are what scripts get; `names` what will be there in the account."""

    config: dict[str, Any]
    region: str
    stack_name: str
    variables: dict[str, str]
    names: tuple[str, ...]


def render(preset: HyperPodPreset, preset_name: str, values: Mapping[str, Value]) -> Rendered:
    """`values` are the request's overrides, which `preset.check_overrides` took. Raises InvalidRequest."""
    given = _Given(preset, values)
    config = copy.deepcopy(preset.config)
    own = _own_stack_name(config, preset_name)
    _write(config, preset, values)
    region = given.region()
    given.check_zone(region)
    tag = given.text(CLUSTER_TAG)
    stack_name = given.text(STACK_NAME) or (f"{own}-{tag}" if tag else own)
    # What a stack's name adds to the preset's own: a name that a tag would give means what the tag means.
    suffix = tag or stack_name.removeprefix(own).lstrip("-")
    forges.name_stack(config, stack_name)
    if suffix:
        forges.rename(config, suffix)
    _check_names(config, region, stack_name, given)
    return Rendered(config, region, stack_name, given.variables(region, stack_name), names(config, region, stack_name))


def parse_renderable(value: Any) -> HyperPodPreset:
    """A preset from a file's content, which makes something without any override too. Raises SchemaError."""
    preset = parse(value)
    try:
        render(preset, "", {})
    except InvalidRequest as error:
        raise SchemaError(("config",), error.message.removeprefix("config: ")) from error
    return preset


HYPERPOD: Kind[HyperPodPreset] = Kind("hyperpod", "hyperpod", parse_renderable)


def names(config: Mapping[str, Any], region: str, stack_name: str) -> tuple[str, ...]:
    """What a deploy of this configuration makes under a name of its own, and a destroy takes away."""
    found = [f"CloudFormation stack {stack_name}"]
    if not forges.is_infraforge(config):
        return tuple(found)
    for eks in forges.enabled(config, "eks"):
        found += [f"EKS cluster {eks.id}", *(f"{kind} {name}" for kind, name in _named_after(eks.id, region))]
        if key := eks.value("keyName"):
            system = "windows" if eks.value("osType") == "windows" else "linux"
            found.append(f"EC2 key pair {key}-{system}-{region}")
        if eks.value("prometheusStackVersion"):
            found.append(f"Secrets Manager secret {stack_name}-grafana-password")
    found += [f"HyperPod cluster {forges.cluster_name(one)}" for one in forges.enabled(config, "hyperpod")]
    found.append(f"IAM policy {_licensing_policy(stack_name, region)}")
    return tuple(found)


def place(config: Mapping[str, Any], zone: str, zones: Sequence[str]) -> dict[str, Any]:
    """The configuration with the nodes, the file systems and the control plane in this zone.

    `zones` are the region's, in the order in which EC2's DescribeAvailabilityZones gives them: InfraForge counts them
    from 1. Raises InvalidRequest for a zone that is not among them.
    """
    if zone not in zones:
        raise InvalidRequest(f"This account has no availability zone {zone}; it has: {', '.join(zones)}.")
    placed: dict[str, Any] = copy.deepcopy(dict(config))
    forges.set_zone(placed, zones.index(zone) + 1, len(zones))
    return placed


def chooses_region(preset: HyperPodPreset, values: Mapping[str, Value]) -> bool:
    """Whether the request says in which region; else it is the preset that does."""
    return any(_Given(preset, values).text(variable) for variable in REGION_VARIABLES)


def needs_place(config: Mapping[str, Any]) -> bool:
    """Whether a zone's name has to become an index, for which AWS must be asked."""
    return any(forges.instances(config, forge) for forge in forges.ZONED)


class _Given:
    """The values of a request, by the variables that their overrides set."""

    def __init__(self, preset: HyperPodPreset, values: Mapping[str, Value]) -> None:
        self._preset = preset
        self._values = values
        self._names = {rule.env: name for name, rule in preset.overrides.items()}

    def text(self, variable: str) -> str | None:
        value = self._values.get(self._names.get(variable, ""))
        return None if value is None else _spell(value)

    def spelled(self, variable: str) -> str:
        """The override as a client writes it."""
        return f"overrides.{self._names[variable]}"

    def declares(self, variable: str) -> bool:
        return variable in self._names

    def region(self) -> str:
        for variable in REGION_VARIABLES:
            if region := self.text(variable):
                try:
                    return check(region, REGION)
                except SchemaError as error:
                    raise InvalidRequest(f"{self.spelled(variable)}: {region} is no AWS region.") from error
        return self._preset.region

    def check_zone(self, region: str) -> None:
        zone = self.text(AVAILABILITY_ZONE)
        if zone and not re.fullmatch(rf"{re.escape(region)}[a-z-].*", zone):
            raise InvalidRequest(
                f"{self.spelled(AVAILABILITY_ZONE)}: {zone} is no zone of {region}; its zones begin with {region}, "
                f"such as {region}a. Give the region that the zone is in as well, or another zone."
            )

    def variables(self, region: str, stack_name: str) -> dict[str, str]:
        found = dict.fromkeys(REGION_VARIABLES, region)
        for name, rule in self._preset.overrides.items():
            value = self._values.get(name, _default(self._preset.config, rule.sets))
            if value is not None and rule.env not in found:
                found[rule.env] = _spell(value)
        if self.declares(STACK_NAME):
            found[STACK_NAME] = stack_name
        return found


def _own_stack_name(config: Mapping[str, Any], preset_name: str) -> str:
    given = config.get("global")
    own = given.get("stackName") if isinstance(given, dict) else None
    return own if isinstance(own, str) and own else "forgeline-" + re.sub(r"[^A-Za-z0-9-]", "-", preset_name)


def _write(config: dict[str, Any], preset: HyperPodPreset, values: Mapping[str, Value]) -> None:
    for name, value in values.items():
        for target in preset.overrides[name].sets:
            holder, key = find(config, target)
            holder[key] = value


def _default(config: Mapping[str, Any], sets: Sequence[str]) -> Value | None:
    if not sets:
        return None
    holder, key = find(config, sets[0])
    value = holder.get(key) if isinstance(holder, dict) else holder[key]
    return value if isinstance(value, str | int | bool) else None


def _spell(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named_after(eks: str, region: str) -> list[tuple[str, str]]:
    return [
        ("IAM role", f"KarpenterNodeRole-{eks}-{region}"),
        ("IAM role", f"KarpenterControllerRole-{eks}-{region}"),
        ("IAM instance profile", f"KarpenterNodeRole-{eks}-{region}"),
        ("IAM policy", f"KarpenterControllerPolicy-{eks}-{region}"),
        ("EC2 launch template", f"{eks}-default-node-template"),
    ]


def _licensing_policy(stack_name: str, region: str) -> str:
    return f"{stack_name}-DCVLicensingPolicy-{region}"


def _check_names(config: Mapping[str, Any], region: str, stack_name: str, given: _Given) -> None:
    """Raises InvalidRequest for a name that AWS would refuse, some of them after half an hour."""
    stack = _Blame(given, (STACK_NAME, CLUSTER_TAG))
    stack.check("the CloudFormation stack", stack_name, _STACK_LENGTH, _STACK)
    if not forges.is_infraforge(config):
        return
    stack.check("the IAM policy", _licensing_policy(stack_name, region), _POLICY_LENGTH)
    clusters = _Blame(given, (CLUSTER_TAG, STACK_NAME))
    for eks in forges.enabled(config, "eks"):
        clusters.check("the EKS cluster", eks.id, _EKS_LENGTH, _EKS)
        for kind, name in _named_after(eks.id, region):
            if kind == "IAM role":
                clusters.check(f"the {kind}", name, _ROLE_LENGTH)
    for hyperpod in forges.enabled(config, "hyperpod"):
        clusters.check("the HyperPod cluster", forges.cluster_name(hyperpod), _CLUSTER_LENGTH, _CLUSTER)


class _Blame:
    """Which override a name comes from, for the sentence that refuses it."""

    def __init__(self, given: _Given, variables: Sequence[str]) -> None:
        self._given = given
        self._first = variables[0]
        self._variable = next((one for one in variables if given.text(one)), None)

    def check(self, what: str, name: str, most: int, pattern: re.Pattern[str] | None = None) -> None:
        if len(name) > most:
            raise InvalidRequest(
                f"{self._where}: {what} would be {name}, {len(name)} characters; AWS takes {most}. "
                f"{self._shorter(len(name) - most)}"
            )
        if pattern is not None and not pattern.fullmatch(name):
            raise InvalidRequest(f"{self._where}: {what} would be {name}; AWS takes only {pattern.pattern}.")

    @property
    def _where(self) -> str:
        return "config" if self._variable is None else self._given.spelled(self._variable)

    def _shorter(self, excess: int) -> str:
        if self._variable is None:
            return "Give shorter names in the preset."
        most = len(self._given.text(self._variable) or "") - excess
        ways = [f"choose one of at most {most} characters"] if most > 0 else ["give shorter names in the preset"]
        if self._variable == STACK_NAME != self._first and self._given.declares(CLUSTER_TAG):
            ways.append(f"or give {self._given.spelled(CLUSTER_TAG)} as well, which the clusters are then named after")
        sentence = ", ".join(ways)
        return f"{sentence[:1].upper()}{sentence[1:]}."
