"""Rendering of presets, read as InfraForge reads it, for every combination of overrides at their edges."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from infraforge_runner.infraforge.presets import HyperPodPreset, parse_preset
from infraforge_runner.infraforge.rendering import RenderedStack, has_zonal_forges, place_in_zone, render
from pipeline.errors import InvalidRequest
from pipeline.presets import yaml
from tests.infraforge_runner.infraforge.infraforge_schema import Eks, HyperPod, InfraForgeStack, Lustre, read_config

FOLDER = Path(__file__).resolve().parents[3] / "presets" / "hyperpod"
SIZES = {"small": (1, "ml.g5.xlarge"), "medium": (2, "ml.g5.2xlarge"), "large": (4, "ml.g5.4xlarge")}
EDGES: dict[str, list[Any]] = {
    "region": [None, "ca-west-1", "ap-southeast-1"],
    "cluster_tag": [None, "t", "a-tag-of-21-chars-all"],
    "gpu_instance_type": [None, "ml.g4dn.xlarge", "ml.p6e-gb200.36xlarge"],
    "gpu_instance_count": [None, 0, 64],
    "stack_name": [None, "S", "A-stack-of-22-letters1"],
    "availability_zone": [None, "a", "d"],  # after the region's name
}


def load_shipped_preset(name: str) -> HyperPodPreset:
    content = (FOLDER / f"{name}.yaml").read_bytes()
    assert len(content) < yaml.MAX_BYTES
    return parse_preset(yaml.parse(content).value)


SHIPPED_PRESETS = {name: load_shipped_preset(name) for name in SIZES}


def render_shipped(name: str = "small", **overrides: Any) -> RenderedStack:
    preset = SHIPPED_PRESETS[name]
    return render(preset, name, preset.validate_overrides(overrides))


def override_combinations() -> list[dict[str, Any]]:
    every = (dict(zip(EDGES, values, strict=True)) for values in itertools.product(*EDGES.values()))
    combinations = [{key: value for key, value in overrides.items() if value is not None} for overrides in every]
    for overrides in combinations:
        if "availability_zone" in overrides:
            overrides["availability_zone"] = overrides.get("region", "us-east-1") + overrides["availability_zone"]
    return combinations


def zone_names(region: str) -> list[str]:
    return [region + letter for letter in "abcd"]


@pytest.mark.parametrize("name", SIZES)
def test_every_combination_of_overrides_renders_valid_config(name: str) -> None:
    rejected_count = 0
    for overrides in override_combinations():
        suffix = overrides.get("cluster_tag") or overrides.get("stack_name")
        region = overrides.get("region", "us-east-1")
        eks = f"{name}-{suffix}" if suffix else name
        if len(f"KarpenterControllerRole-{eks}-{region}") > 64:
            with pytest.raises(InvalidRequest, match="AWS takes 64"):
                render_shipped(name, **overrides)
            rejected_count += 1
            continue
        result = render_shipped(name, **overrides)
        zone = overrides.get("availability_zone")
        stack = read_config(place_in_zone(result.config, zone, zone_names(region)) if zone else result.config)
        check_names(stack, result, name, overrides)
        check_zone(stack, "abcd".index(zone[-1]) + 1 if zone else None)
        nodes = stack.get(HyperPod)
        count, kind = SIZES[name]
        assert nodes.instanceCount == overrides.get("gpu_instance_count", count)
        assert nodes.instanceType == overrides.get("gpu_instance_type", kind)
        assert result.region == region
        assert result.variables["GPU_INSTANCE_TYPE"] == nodes.instanceType
        assert result.variables["GPU_INSTANCE_COUNT"] == str(nodes.instanceCount)
    assert rejected_count < len(override_combinations()) / 3


def check_zone(stack: InfraForgeStack, index: int | None) -> None:
    """`None`: the preset's own."""
    assert stack.get(HyperPod).azIndex == stack.get(Lustre).azIndex == (index or 1)
    assert stack.get(Eks).controlPlaneAzIndices == {None: "1,2", 1: "1,2", 4: "4,1"}[index]


def check_names(stack: InfraForgeStack, result: RenderedStack, preset: str, overrides: dict[str, Any]) -> None:
    tag, stack_name = overrides.get("cluster_tag"), overrides.get("stack_name")
    own = f"forgeline-{preset}"
    ending = f"-{tag or stack_name}" if tag or stack_name else ""
    expected = stack_name or own + ending
    assert stack.stack_name == result.stack_name == result.variables["STACK_NAME"] == expected
    assert result.variables.get("CLUSTER_TAG") == tag
    eks, nodes = stack.get(Eks), stack.get(HyperPod)
    assert (eks.id, nodes.dependsOn) == (preset + ending, f"EKS:{preset}{ending}")
    assert nodes.clusterName == eks.keyName == own + ending
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", nodes.clusterName)
    assert eks.dependsOn == f"LUSTRE:{stack.get(Lustre).id}"
    for name in (stack.stack_name, eks.id, nodes.clusterName):
        assert any(name in resource.split() for resource in result.names)


def test_shipped_presets_differ_only_in_names_and_nodes() -> None:
    plain = {name: (FOLDER / f"{name}.yaml").read_text() for name in SIZES}
    for name, text in plain.items():
        count, kind = SIZES[name]
        assert f"instanceType: {kind}\n" in text
        assert f"instanceCount: {count}\n" in text
    lines = [
        [
            re.sub(rf"\b{name}\b", "NAME", line)
            for line in text.splitlines()
            if not re.search("instance(Type|Count): |ml.g5", line)
        ]
        for name, text in plain.items()
    ]
    assert lines[0] == lines[1] == lines[2]


def test_rendered_clusters_share_no_name() -> None:
    overrides: list[dict[str, Any]] = [{}, {"cluster_tag": "one"}, {"cluster_tag": "two"}, {"stack_name": "Three"}]
    for first, second in itertools.combinations([render_shipped(**each) for each in overrides], 2):
        assert not set(first.names) & set(second.names)


def test_stack_name_equals_tag_that_gives_same_name() -> None:
    assert render_shipped(stack_name="forgeline-small").config == render_shipped().config
    assert render_shipped(stack_name="forgeline-small-demo").config == render_shipped(cluster_tag="demo").config


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-1"])
@pytest.mark.parametrize("tag", [None, "t"])
def test_stack_name_length_is_limited_by_aws(name: str, region: str, tag: str | None) -> None:
    """Of the names that InfraForge makes from it, one is as long as AWS accepts, and none is longer."""
    overrides = {"region": region, **({"cluster_tag": tag} if tag else {})}
    accepted = []
    for length in range(1, 140):
        try:
            accepted.append(render_shipped(name, stack_name="S" * length, **overrides))
        except InvalidRequest as error:
            assert "AWS takes" in error.message  # noqa: PT017 - both ends are looked at
    assert [len(stack.stack_name) for stack in accepted] == list(range(1, len(accepted) + 1))
    lengths = {kind: max(map(len, names_of_kind(accepted[-1], kind))) for kind in MAX_NAME_CHARS}
    assert all(lengths[kind] <= MAX_NAME_CHARS[kind] for kind in MAX_NAME_CHARS)
    assert lengths["IAM policy" if tag else "IAM role"] == MAX_NAME_CHARS["IAM policy" if tag else "IAM role"]


MAX_NAME_CHARS = {
    "CloudFormation stack": 128,
    "EKS cluster": 100,
    "IAM role": 64,
    "IAM policy": 128,
    "HyperPod cluster": 63,
}


def names_of_kind(result: RenderedStack, kind: str) -> list[str]:
    return [name.removeprefix(f"{kind} ") for name in result.names if name.startswith(f"{kind} ")]


@pytest.mark.parametrize(("tag", "is_taken"), [("t" * 8, True), ("t" * 9, False)])
def test_tag_length_is_limited_by_preset_cluster_name(tag: str, is_taken: bool) -> None:
    forges = {"hyperpod": {"instances": [{"id": "h", "clusterName": "c" * 54}]}}
    own = make_preset(config={"enabledForges": ["h"], "forges": forges}, overrides={"tag": {"env": "CLUSTER_TAG"}})
    if is_taken:
        assert names_of_kind(render(own, "own", {"tag": tag}), "HyperPod cluster") == [f"{'c' * 54}-{tag}"]
        return
    with pytest.raises(InvalidRequest, match=r"overrides\.tag: the HyperPod cluster would be .* at most 8 characters"):
        render(own, "own", {"tag": tag})


def test_render_does_not_modify_preset() -> None:
    before = repr(SHIPPED_PRESETS["small"].config)
    render_shipped(cluster_tag="one", gpu_instance_count=7)
    assert repr(SHIPPED_PRESETS["small"].config) == before


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"stack_name": "S" * 40}, r"overrides\.stack_name: the IAM role .* or give overrides\.cluster_tag as well"),
        ({"stack_name": "S" * 110, "cluster_tag": "t"}, r"overrides\.stack_name: the IAM policy .* AWS takes 128"),
        (
            {"stack_name": "S" * 130, "cluster_tag": "t"},
            r"overrides\.stack_name: the CloudFormation stack .*128\. Choose one",
        ),
        (
            {"cluster_tag": "a-tag-of-21-chars-all", "region": "ap-southeast-1"},
            r"overrides\.cluster_tag: the IAM role would be KarpenterControllerRole-small-a-tag-of-21-chars-all-"
            r"ap-southeast-1, 66 characters; AWS takes 64\. Choose one of at most 19 characters\.",
        ),
        ({"availability_zone": "us-west-2a"}, r"overrides\.availability_zone: us-west-2a is no zone of us-east-1"),
        ({"availability_zone": "us-east-11a"}, r"us-east-11a is no zone of us-east-1"),
    ],
)
def test_name_beyond_aws_limit_is_rejected_with_suggestion(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        render_shipped(**overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"gpu_instance_type": "g5.xlarge"},
        {"gpu_instance_type": "ml.g5.3xlarge"},
        {"gpu_instance_count": -1},
        {"gpu_instance_count": 65},
        {"gpu_instance_count": True},
        {"cluster_tag": "Demo"},
        {"cluster_tag": "ends-"},
        {"cluster_tag": "x" * 22},
        {"region": "US-EAST-1"},
        {"stack_name": "1st"},
        {"availability_zone": "us-east-1"},
    ],
)
def test_shipped_overrides_reject_invalid_values(overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"overrides\.\w+: expected"):
        render_shipped(**overrides)


@pytest.mark.parametrize(
    ("zone", "index", "control_plane"), [("us-west-2a", 1, "1,2"), ("us-west-2b", 2, "2,1"), ("us-west-2d", 4, "4,1")]
)
def test_zone_becomes_index_among_zones_of_region(zone: str, index: int, control_plane: str) -> None:
    result = render_shipped(region="us-west-2", availability_zone=zone)
    assert has_zonal_forges(result.config)
    assert result.variables["AVAILABILITY_ZONE"] == zone
    stack = read_config(place_in_zone(result.config, zone, zone_names("us-west-2")))
    assert stack.get(HyperPod).azIndex == stack.get(Lustre).azIndex == index
    assert stack.get(Eks).controlPlaneAzIndices == control_plane
    assert read_config(result.config).get(HyperPod).azIndex == 1


def test_unknown_zone_is_rejected_with_list_of_zones() -> None:
    with pytest.raises(InvalidRequest, match="no availability zone us-west-2e; it has: us-west-2a, us-west-2b"):
        place_in_zone(render_shipped(region="us-west-2").config, "us-west-2e", zone_names("us-west-2"))


def test_zone_of_instance_is_replaced() -> None:
    config = {
        "forges": {
            "hyperpod": {"defaults": {}, "instances": [{"id": "a", "azIndex": 3}, {"id": "b"}]},
            "eks": {"defaults": {"controlPlaneAzIndices": "1,2,3"}, "instances": [{"id": "e"}]},
            "lustre": {"instances": [{"id": "fsx"}]},
        }
    }
    forges = place_in_zone(config, "us-west-2c", zone_names("us-west-2"))["forges"]
    assert forges["hyperpod"]["instances"] == [{"id": "a", "azIndex": 3}, {"id": "b"}]
    assert forges["eks"]["defaults"]["controlPlaneAzIndices"] == "3,1,2"
    assert forges["lustre"]["instances"] == [{"id": "fsx", "azIndex": 3}]


def make_preset(**keys: Any) -> HyperPodPreset:
    return parse_preset(keys)


def test_preset_without_infraforge_config_has_default_stack_name() -> None:
    result = render(make_preset(region="eu-west-1"), "my.own_preset", {})
    assert (result.stack_name, result.region, result.config) == ("forgeline-my-own-preset", "eu-west-1", {})
    assert result.variables == {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert result.names == ("CloudFormation stack forgeline-my-own-preset",)
    assert not has_zonal_forges(result.config)


def test_overrides_are_recognised_by_variable() -> None:
    own = make_preset(
        config={"global": {"stackName": "mine"}, "any": [{"flag": False}, 3]},
        overrides={
            "where": {"env": "AWS_REGION"},
            "label": {"env": "CLUSTER_TAG"},
            "verbose": {"env": "VERBOSE", "type": "boolean", "sets": ["any.0.flag"]},
            "depth": {"env": "DEPTH", "type": "integer", "sets": ["any.1"]},
        },
    )
    plain = render(own, "mine", {})
    assert plain.variables == {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "VERBOSE": "false",
        "DEPTH": "3",
    }
    changed = render(own, "mine", own.validate_overrides({"where": "eu-west-3", "label": "t", "verbose": True}))
    assert (changed.region, changed.stack_name) == ("eu-west-3", "mine-t")
    assert changed.config["any"] == [{"flag": True}, 3]
    assert changed.variables == {
        "AWS_REGION": "eu-west-3",
        "AWS_DEFAULT_REGION": "eu-west-3",
        "CLUSTER_TAG": "t",
        "VERBOSE": "true",
        "DEPTH": "3",
    }
    with pytest.raises(InvalidRequest, match=r"overrides\.where: mars is no AWS region"):
        render(own, "mine", {"where": "mars"})


def test_instance_without_name_gets_default_name_of_infraforge() -> None:
    own = make_preset(
        config={
            "global": {"stackName": "mine"},
            "enabledForges": ["e", "h", 7],
            "forges": {
                "eks": {"instances": [{"id": "e"}]},
                "hyperpod": {"defaults": {"dependsOn": "EKS:e, LUSTRE:x"}, "instances": [{"id": "h"}]},
                "odd": None,
            },
        },
        overrides={"tag": {"env": "CLUSTER_TAG"}},
    )
    assert "HyperPod cluster h-hyperpod" in render(own, "mine", {}).names
    config = render(own, "mine", {"tag": "t"}).config
    assert config["enabledForges"] == ["e-t", "h", 7]
    assert config["forges"]["hyperpod"]["instances"] == [{"id": "h", "clusterName": "h-hyperpod-t"}]
    assert config["forges"]["hyperpod"]["defaults"] == {"dependsOn": "EKS:e-t,LUSTRE:x"}
