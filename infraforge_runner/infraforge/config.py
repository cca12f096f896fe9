"""InfraForge's configuration, as far as Forgeline changes it: the instances of its forges, and their names.

    global: {stackName, …}
    enabledForges: [ids of instances]
    forges: {FORGE: {defaults: {…}, instances: [{id, …}]}}

An instance's value takes precedence over its forge's default, unless it is empty or 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ZONAL_FORGES = ("hyperpod", "lustre", "eks")
"""Forges that are in one zone, or begin there."""

MIN_CONTROL_PLANE_ZONES = 2
"""Required by EKS."""


@dataclass(frozen=True)
class ForgeInstance:
    """One instance of a forge, with the forge's defaults; both are the configuration's own mappings."""

    settings: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.settings.get("id", ""))

    def get(self, key: str) -> Any:
        return self.settings.get(key) or self.defaults.get(key)


def is_infraforge_config(config: Mapping[str, Any]) -> bool:
    return isinstance(config.get("forges"), dict)


def list_instances(config: Mapping[str, Any], forge: str) -> list[ForgeInstance]:
    """All instances of a forge, enabled or not."""
    forges = config.get("forges")
    section = forges.get(forge) if isinstance(forges, dict) else None
    if not isinstance(section, dict):
        return []
    defaults, instances = section.get("defaults"), section.get("instances")
    return [
        ForgeInstance(settings, defaults if isinstance(defaults, dict) else {})
        for settings in (instances if isinstance(instances, list) else [])
        if isinstance(settings, dict)
    ]


def list_enabled_instances(config: Mapping[str, Any], forge: str) -> list[ForgeInstance]:
    """The instances of a forge that a deploy creates."""
    ids = config.get("enabledForges")
    return [instance for instance in list_instances(config, forge) if isinstance(ids, list) and instance.id in ids]


def hyperpod_cluster_name(hyperpod: ForgeInstance) -> str:
    return str(hyperpod.get("clusterName") or f"{hyperpod.id}-hyperpod")


def set_stack_name(config: dict[str, Any], stack_name: str) -> None:
    if is_infraforge_config(config) and isinstance(config.setdefault("global", {}), dict):
        config["global"]["stackName"] = stack_name


def append_suffix_to_names(config: dict[str, Any], suffix: str) -> None:
    """Append the suffix to all names that must be unique in an account and region."""
    for hyperpod in list_instances(config, "hyperpod"):
        if not hyperpod.get("clusterName"):
            hyperpod.settings["clusterName"] = hyperpod_cluster_name(hyperpod)
    _append_suffix(config, "hyperpod", "clusterName", suffix)
    _append_suffix(config, "eks", "keyName", suffix)
    new_ids = {eks.id: f"{eks.id}-{suffix}" for eks in list_instances(config, "eks") if eks.id}
    for eks in list_instances(config, "eks"):
        eks.settings["id"] = new_ids.get(eks.id, "")
    if isinstance(config.get("enabledForges"), list):
        config["enabledForges"] = [new_ids.get(str(id), id) for id in config["enabledForges"]]
    for forge in config["forges"] if is_infraforge_config(config) else ():
        for mapping in _list_mappings(config, forge):
            if isinstance(mapping.get("dependsOn"), str):
                mapping["dependsOn"] = _rename_dependencies(mapping["dependsOn"], new_ids)


def set_zone(config: dict[str, Any], index: int, zone_count: int) -> None:
    """Put the nodes and the file systems into the zone with this index, and make it the control plane's first."""
    for forge in ("hyperpod", "lustre"):
        for mapping in _list_mappings_with(config, forge, "azIndex"):
            mapping["azIndex"] = index
    for mapping in _list_mappings_with(config, "eks", "controlPlaneAzIndices"):
        current = str(mapping.get("controlPlaneAzIndices") or "")
        mapping["controlPlaneAzIndices"] = _control_plane_indices(current, index, zone_count)


def _list_mappings_with(config: Mapping[str, Any], forge: str, key: str) -> list[dict[str, Any]]:
    """The mappings of a forge that have the key; all its instances if none has."""
    mappings = [mapping for mapping in _list_mappings(config, forge) if key in mapping]
    return mappings or [instance.settings for instance in list_instances(config, forge)]


def _control_plane_indices(current: str, index: int, zone_count: int) -> str:
    """As many zones as before, and two at least: this one first, then the current ones."""
    indices = [int(part) for part in current.split(",") if part.strip().isdigit()]
    others = dict.fromkeys(
        zone for zone in [*indices, *range(1, zone_count + 1)] if zone != index and zone <= zone_count
    )
    count = max(len(indices), MIN_CONTROL_PLANE_ZONES)
    return ",".join(map(str, [index, *others][:count]))


def _append_suffix(config: Mapping[str, Any], forge: str, key: str, suffix: str) -> None:
    for mapping in _list_mappings(config, forge):
        if mapping.get(key):
            mapping[key] = f"{mapping[key]}-{suffix}"


def _list_mappings(config: Mapping[str, Any], forge: str) -> list[dict[str, Any]]:
    """The settings of the forge's instances, and once the defaults that they share."""
    instances = list_instances(config, forge)
    return [*(instance.settings for instance in instances), *(instance.defaults for instance in instances[:1])]


def _rename_dependencies(depends_on: str, new_ids: Mapping[str, str]) -> str:
    """`depends_on` is `TYPE:id`, with commas between several."""
    dependencies = []
    for dependency in depends_on.split(","):
        forge, colon, id = dependency.strip().partition(":")
        dependencies.append(f"EKS:{new_ids.get(id, id)}" if forge == "EKS" else f"{forge}{colon}{id}")
    return ",".join(dependencies)
