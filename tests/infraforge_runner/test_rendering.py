"""What a request's overrides make of a preset: read as InfraForge reads it, for every combination at its edges."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from infraforge_runner.presets import HyperPodPreset, parse
from infraforge_runner.rendering import Rendered, needs_place, place, render
from pipeline import yamlfile
from pipeline.errors import InvalidRequest
from tests.infraforge_runner.infraforge_schema import Eks, HyperPod, Lustre, Read, read

FOLDER = Path(__file__).resolve().parents[2] / "presets" / "hyperpod"
SIZES = {"small": (1, "ml.g5.xlarge"), "medium": (2, "ml.g5.2xlarge"), "large": (4, "ml.g5.4xlarge")}
EDGES: dict[str, list[Any]] = {
    "region": [None, "ca-west-1", "ap-southeast-1"],
    "cluster_tag": [None, "t", "a-tag-of-21-chars-all"],
    "gpu_instance_type": [None, "ml.g4dn.xlarge", "ml.p6e-gb200.36xlarge"],
    "gpu_instance_count": [None, 0, 64],
    "stack_name": [None, "S", "A-stack-of-22-letters1"],
    "availability_zone": [None, "a", "d"],  # after the region's name
}


def shipped(name: str) -> HyperPodPreset:
    content = (FOLDER / f"{name}.yaml").read_bytes()
    assert len(content) < yamlfile.MAX_BYTES
    return parse(yamlfile.parse(content).value)


PRESETS = {name: shipped(name) for name in SIZES}


def rendered(name: str = "small", **overrides: Any) -> Rendered:
    preset = PRESETS[name]
    return render(preset, name, preset.check_overrides(overrides))


def combinations() -> list[dict[str, Any]]:
    every = (dict(zip(EDGES, values, strict=True)) for values in itertools.product(*EDGES.values()))
    found = [{key: value for key, value in one.items() if value is not None} for one in every]
    for one in found:
        if "availability_zone" in one:
            one["availability_zone"] = one.get("region", "us-east-1") + one["availability_zone"]
    return found


def zones_of(region: str) -> list[str]:
    return [region + letter for letter in "abcd"]


@pytest.mark.parametrize("name", SIZES)
def test_every_combination_of_overrides_is_what_infraforge_reads(name: str) -> None:
    refused = 0
    for overrides in combinations():
        suffix = overrides.get("cluster_tag") or overrides.get("stack_name")
        region = overrides.get("region", "us-east-1")
        eks = f"{name}-{suffix}" if suffix else name
        if len(f"KarpenterControllerRole-{eks}-{region}") > 64:
            with pytest.raises(InvalidRequest, match="AWS takes 64"):
                rendered(name, **overrides)
            refused += 1
            continue
        result = rendered(name, **overrides)
        zone = overrides.get("availability_zone")
        made = read(place(result.config, zone, zones_of(region)) if zone else result.config)
        check_names(made, result, name, overrides)
        check_zone(made, "abcd".index(zone[-1]) + 1 if zone else None)
        nodes = made.the(HyperPod)
        count, kind = SIZES[name]
        assert nodes.instanceCount == overrides.get("gpu_instance_count", count)
        assert nodes.instanceType == overrides.get("gpu_instance_type", kind)
        assert result.region == region
        assert result.variables["GPU_INSTANCE_TYPE"] == nodes.instanceType
        assert result.variables["GPU_INSTANCE_COUNT"] == str(nodes.instanceCount)
    assert refused < len(combinations()) / 3


def check_zone(made: Read, index: int | None) -> None:
    """`None`: the preset's own."""
    assert made.the(HyperPod).azIndex == made.the(Lustre).azIndex == (index or 1)
    assert made.the(Eks).controlPlaneAzIndices == {None: "1,2", 1: "1,2", 4: "4,1"}[index]


def check_names(made: Read, result: Rendered, preset: str, overrides: dict[str, Any]) -> None:
    tag, stack = overrides.get("cluster_tag"), overrides.get("stack_name")
    own = f"forgeline-{preset}"
    ending = f"-{tag or stack}" if tag or stack else ""
    expected = stack or own + ending
    assert made.stack_name == result.stack_name == result.variables["STACK_NAME"] == expected
    assert result.variables.get("CLUSTER_TAG") == tag
    eks, nodes = made.the(Eks), made.the(HyperPod)
    assert (eks.id, nodes.dependsOn) == (preset + ending, f"EKS:{preset}{ending}")
    assert nodes.clusterName == eks.keyName == own + ending
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", nodes.clusterName)
    assert eks.dependsOn == f"LUSTRE:{made.the(Lustre).id}"
    for name in (made.stack_name, eks.id, nodes.clusterName):
        assert any(name in one.split() for one in result.names)


def test_the_shipped_presets_differ_only_in_names_and_nodes() -> None:
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


def test_two_clusters_share_no_name() -> None:
    one, two, three = rendered(cluster_tag="one"), rendered(cluster_tag="two"), rendered(stack_name="Three")
    for first, second in itertools.combinations([rendered(), one, two, three], 2):
        assert not set(first.names) & set(second.names)


def test_a_stacks_name_means_what_the_tag_means_that_would_give_it() -> None:
    assert rendered(stack_name="forgeline-small").config == rendered().config
    assert rendered(stack_name="forgeline-small-demo").config == rendered(cluster_tag="demo").config


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-1"])
@pytest.mark.parametrize("tag", [None, "t"])
def test_a_stacks_name_may_be_as_long_as_awss_limits_allow_and_no_longer(
    name: str, region: str, tag: str | None
) -> None:
    """Of what InfraForge names after it, one is as long as AWS takes, and none is longer."""
    given = {"region": region, **({"cluster_tag": tag} if tag else {})}
    taken = []
    for length in range(1, 140):
        try:
            taken.append(rendered(name, stack_name="S" * length, **given))
        except InvalidRequest as error:
            assert "AWS takes" in error.message  # noqa: PT017 - both ends are looked at
    assert [len(one.stack_name) for one in taken] == list(range(1, len(taken) + 1))
    lengths = {kind: max(map(len, names_of(taken[-1], kind))) for kind in LIMITS}
    assert all(lengths[kind] <= LIMITS[kind] for kind in LIMITS)
    assert lengths["IAM policy" if tag else "IAM role"] == LIMITS["IAM policy" if tag else "IAM role"]


LIMITS = {"CloudFormation stack": 128, "EKS cluster": 100, "IAM role": 64, "IAM policy": 128, "HyperPod cluster": 63}


def names_of(result: Rendered, kind: str) -> list[str]:
    return [name.removeprefix(f"{kind} ") for name in result.names if name.startswith(f"{kind} ")]


@pytest.mark.parametrize(("tag", "is_taken"), [("t" * 8, True), ("t" * 9, False)])
def test_a_presets_own_long_name_leaves_a_tag_less_room(tag: str, is_taken: bool) -> None:
    forges = {"hyperpod": {"instances": [{"id": "h", "clusterName": "c" * 54}]}}
    own = preset(config={"enabledForges": ["h"], "forges": forges}, overrides={"tag": {"env": "CLUSTER_TAG"}})
    if is_taken:
        assert names_of(render(own, "own", {"tag": tag}), "HyperPod cluster") == [f"{'c' * 54}-{tag}"]
        return
    with pytest.raises(InvalidRequest, match=r"overrides\.tag: the HyperPod cluster would be .* at most 8 characters"):
        render(own, "own", {"tag": tag})


def test_the_presets_own_configuration_is_not_touched() -> None:
    before = repr(PRESETS["small"].config)
    rendered(cluster_tag="one", gpu_instance_count=7)
    assert repr(PRESETS["small"].config) == before


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
def test_what_aws_would_refuse_is_refused_with_a_way_out(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        rendered(**overrides)


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
def test_the_shipped_rules_refuse(overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"overrides\.\w+: expected"):
        rendered(**overrides)


@pytest.mark.parametrize(
    ("zone", "index", "control_plane"), [("us-west-2a", 1, "1,2"), ("us-west-2b", 2, "2,1"), ("us-west-2d", 4, "4,1")]
)
def test_a_zone_becomes_its_place_among_the_regions(zone: str, index: int, control_plane: str) -> None:
    result = rendered(region="us-west-2", availability_zone=zone)
    assert needs_place(result.config)
    assert result.variables["AVAILABILITY_ZONE"] == zone
    made = read(place(result.config, zone, zones_of("us-west-2")))
    assert made.the(HyperPod).azIndex == made.the(Lustre).azIndex == index
    assert made.the(Eks).controlPlaneAzIndices == control_plane
    assert read(result.config).the(HyperPod).azIndex == 1


def test_a_zone_that_the_account_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(InvalidRequest, match="no availability zone us-west-2e; it has: us-west-2a, us-west-2b"):
        place(rendered(region="us-west-2").config, "us-west-2e", zones_of("us-west-2"))


def test_a_zone_that_an_instance_names_itself_is_set_too() -> None:
    config = {
        "forges": {
            "hyperpod": {"defaults": {}, "instances": [{"id": "a", "azIndex": 3}, {"id": "b"}]},
            "eks": {"defaults": {"controlPlaneAzIndices": "1,2,3"}, "instances": [{"id": "e"}]},
            "lustre": {"instances": [{"id": "fsx"}]},
        }
    }
    forges = place(config, "us-west-2c", zones_of("us-west-2"))["forges"]
    assert forges["hyperpod"]["instances"] == [{"id": "a", "azIndex": 3}, {"id": "b"}]
    assert forges["eks"]["defaults"]["controlPlaneAzIndices"] == "3,1,2"
    assert forges["lustre"]["instances"] == [{"id": "fsx", "azIndex": 3}]


def preset(**keys: Any) -> HyperPodPreset:
    return parse(keys)


def test_a_preset_without_infraforge_has_a_stack_name_of_its_own() -> None:
    result = render(preset(region="eu-west-1"), "my.own_preset", {})
    assert (result.stack_name, result.region, result.config) == ("forgeline-my-own-preset", "eu-west-1", {})
    assert result.variables == {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert result.names == ("CloudFormation stack forgeline-my-own-preset",)
    assert not needs_place(result.config)


def test_overrides_are_known_by_their_variables() -> None:
    own = preset(
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
    changed = render(own, "mine", own.check_overrides({"where": "eu-west-3", "label": "t", "verbose": True}))
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


def test_an_instance_without_a_name_is_given_the_one_that_infraforge_would_give_it() -> None:
    own = preset(
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
