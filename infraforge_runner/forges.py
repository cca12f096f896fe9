"""InfraForge's configuration, as far as we change it: the instances of its forges, and what they are named.

    global: {stackName, …}
    enabledForges: [ids of instances]
    forges: {FORGE: {defaults: {…}, instances: [{id, …}]}}

What an instance says counts over its forge's defaults, unless it is empty or 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ZONED = ("hyperpod", "lustre", "eks")
"""Forges that stand in one zone, or are begun there."""

CONTROL_PLANE_ZONES = 2
"""EKS wants its control plane in as many at least."""


@dataclass(frozen=True)
class Instance:
    """One instance of a forge, over the forge's defaults; both are the configuration's own mappings."""

    own: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.own.get("id", ""))

    def value(self, key: str) -> Any:
        return self.own.get(key) or self.defaults.get(key)


def is_infraforge(config: Mapping[str, Any]) -> bool:
    return isinstance(config.get("forges"), dict)


def instances(config: Mapping[str, Any], forge: str) -> list[Instance]:
    """Those that are written there, enabled or not."""
    forges = config.get("forges")
    found = forges.get(forge) if isinstance(forges, dict) else None
    if not isinstance(found, dict):
        return []
    defaults, own = found.get("defaults"), found.get("instances")
    kept = own if isinstance(own, list) else []
    return [Instance(one, defaults if isinstance(defaults, dict) else {}) for one in kept if isinstance(one, dict)]


def enabled(config: Mapping[str, Any], forge: str) -> list[Instance]:
    """Those that a deploy makes."""
    ids = config.get("enabledForges")
    return [one for one in instances(config, forge) if isinstance(ids, list) and one.id in ids]


def cluster_name(hyperpod: Instance) -> str:
    return str(hyperpod.value("clusterName") or f"{hyperpod.id}-hyperpod")


def name_stack(config: dict[str, Any], stack_name: str) -> None:
    if is_infraforge(config) and isinstance(config.setdefault("global", {}), dict):
        config["global"]["stackName"] = stack_name


def rename(config: dict[str, Any], suffix: str) -> None:
    """Adds the suffix to all that must be there only once in an account and region."""
    for hyperpod in instances(config, "hyperpod"):
        if not hyperpod.value("clusterName"):
            hyperpod.own["clusterName"] = cluster_name(hyperpod)
    _extend(config, "hyperpod", "clusterName", suffix)
    _extend(config, "eks", "keyName", suffix)
    new_ids = {one.id: f"{one.id}-{suffix}" for one in instances(config, "eks") if one.id}
    for eks in instances(config, "eks"):
        eks.own["id"] = new_ids.get(eks.id, "")
    if isinstance(config.get("enabledForges"), list):
        config["enabledForges"] = [new_ids.get(str(id), id) for id in config["enabledForges"]]
    for forge in config["forges"] if is_infraforge(config) else ():
        for holder in _mappings(config, forge):
            if isinstance(holder.get("dependsOn"), str):
                holder["dependsOn"] = _depend(holder["dependsOn"], new_ids)


def set_zone(config: dict[str, Any], index: int, zones: int) -> None:
    """Puts the nodes and the file systems into the zone with this index, and the control plane there first."""
    for forge in ("hyperpod", "lustre"):
        for holder in _holders(config, forge, "azIndex"):
            holder["azIndex"] = index
    for holder in _holders(config, "eks", "controlPlaneAzIndices"):
        holder["controlPlaneAzIndices"] = _indices(str(holder.get("controlPlaneAzIndices") or ""), index, zones)


def _holders(config: Mapping[str, Any], forge: str, key: str) -> list[dict[str, Any]]:
    """Where the value stands; where it stands nowhere, the instances."""
    found = _mappings(config, forge)
    return [holder for holder in found if key in holder] or [one.own for one in instances(config, forge)]


def _indices(before: str, index: int, zones: int) -> str:
    """As many zones as before, and two at least: this one first, then those that were there."""
    wanted = [int(part) for part in before.split(",") if part.strip().isdigit()]
    others = dict.fromkeys(one for one in [*wanted, *range(1, zones + 1)] if one != index and one <= zones)
    count = max(len(wanted), CONTROL_PLANE_ZONES)
    return ",".join(map(str, [index, *others][:count]))


def _extend(config: Mapping[str, Any], forge: str, key: str, suffix: str) -> None:
    for holder in _mappings(config, forge):
        if holder.get(key):
            holder[key] = f"{holder[key]}-{suffix}"


def _mappings(config: Mapping[str, Any], forge: str) -> list[dict[str, Any]]:
    """The forge's instances, and once the defaults that they share."""
    found = instances(config, forge)
    return [*(one.own for one in found), *(one.defaults for one in found[:1])]


def _depend(said: str, new_ids: Mapping[str, str]) -> str:
    """`TYPE:id`, with commas between several."""
    renamed = []
    for one in said.split(","):
        forge, colon, id = one.strip().partition(":")
        renamed.append(f"EKS:{new_ids.get(id, id)}" if forge == "EKS" else f"{forge}{colon}{id}")
    return ",".join(renamed)
