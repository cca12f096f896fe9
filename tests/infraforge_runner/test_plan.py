"""What a dry run tells: of the configuration, the difference, the command, and what it could not check."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from infraforge_runner.job import Spec
from infraforge_runner.plan import Machine, Run, check_script, difference, make_plan, masked, unchecked
from infraforge_runner.presets import SCRIPTS, Action
from infraforge_runner.rendering import render
from infraforge_runner.stacks import Stack
from tests.infraforge_runner.test_rendering import PRESETS

BARE = Machine(checkout="InfraForge is not set up.", has_cdk=False, has_node=False, has_credentials=False)
FULL = Machine(checkout=None, has_cdk=True, has_node=True, has_credentials=True)
RUN = Run("bash deploy.sh", {"AWS_SECRET_ACCESS_KEY": "hidden", "MY_PASSWORD": "hidden", "AWS_REGION": "us-east-1"})


def spec(action: Action = "deploy", *, own_script: bool = False, **overrides: Any) -> Spec:
    rendered = render(PRESETS["small"], "small", overrides)
    return Spec(
        job_id="1",
        action=action,
        preset_name="small",
        preset=PRESETS["small"],
        dry_run=True,
        region=rendered.region,
        stack_name=rendered.stack_name,
        overrides=overrides,
        variables=rendered.variables,
        names=rendered.names,
        config=rendered.config,
        created_at="2026-01-01T00:00:00+00:00",
        own_script=own_script,
    )


def standing(of: Spec, state: Literal["standing", "uncertain"] = "standing", since: str | None = "2026") -> Stack:
    return Stack(
        stack_name=of.stack_name,
        region=of.region,
        preset="small",
        job_id="0",
        since=since,
        state=state,
        config=of.config,
        variables={},
    )


def test_a_plan_shows_all_and_no_secret() -> None:
    asked = spec(cluster_tag="demo")
    plan = make_plan(asked, RUN, asked.config, None, unchecked(asked, BARE))
    assert plan.config["global"]["stackName"] == "forgeline-small-demo"
    assert plan.command == "bash deploy.sh"
    assert plan.environment == {"AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": "***", "MY_PASSWORD": "***"}
    assert "EKS cluster small-demo" in plan.names
    assert "+ forges.hyperpod.defaults.instanceCount: 1" in plan.diff
    assert all(line.startswith("+ ") for line in plan.diff)


def test_the_difference_is_from_what_the_stack_was_last_deployed_with() -> None:
    before, after = spec(), spec(gpu_instance_count=3)
    plan = make_plan(after, RUN, after.config, standing(before), [])
    assert plan.diff == [
        "- forges.hyperpod.defaults.instanceCount: 1",
        "+ forges.hyperpod.defaults.instanceCount: 3",
    ]
    assert make_plan(before, RUN, before.config, standing(before), []).diff == []


def test_of_a_stack_that_has_never_stood_everything_is_new() -> None:
    asked = spec()
    plan = make_plan(asked, RUN, asked.config, standing(asked, "uncertain", since=None), [])
    assert "+ forges.hyperpod.defaults.instanceCount: 1" in plan.diff


def test_a_difference_names_what_comes_and_what_goes() -> None:
    before = {"a": {"b": True, "gone": 1}, "list": [1, 2]}
    after = {"a": {"b": "true"}, "list": [1], "new": None}
    assert difference(before, after) == ["+ new: null", "- a.gone: 1", "- list.1: 2"]


def test_a_destroy_lists_what_would_go() -> None:
    asked = spec("destroy")
    plan = make_plan(asked, RUN, asked.config, standing(asked), [])
    assert plan.diff == []
    assert "HyperPod cluster forgeline-small" in plan.names


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (BARE, ["InfraForge is not set up.", "cdk is not on the PATH", "node is not on the PATH", "no credentials"]),
        (FULL, ["quotas", "bootstrapped in us-east-1"]),
    ],
)
def test_what_could_not_be_checked_is_said(machine: Machine, words: list[str]) -> None:
    sentences = unchecked(spec(), machine)
    for word in words:
        assert any(word in sentence for sentence in sentences)
    assert all(sentence.endswith((".", ")")) for sentence in sentences)


def test_a_zone_that_could_not_be_looked_up_is_said() -> None:
    asked = spec(availability_zone="us-east-1b")
    assert any("us-east-1b was not looked up" in sentence for sentence in unchecked(asked, BARE))
    assert not any("us-east-1b" in sentence for sentence in unchecked(asked, FULL))


def test_of_a_presets_own_script_only_that_is_said() -> None:
    first, *_ = unchecked(spec(own_script=True), BARE)
    assert first == "The preset's own script was not run: only it knows what it does on deploy."
    assert not any("cdk" in sentence for sentence in unchecked(spec("destroy", own_script=True), BARE))


def test_templates_are_compared_only_where_everything_is_there() -> None:
    assert check_script(spec(), FULL) == SCRIPTS / "diff.sh"
    assert check_script(spec(), BARE) is None
    assert check_script(spec("destroy"), FULL) is None
    assert check_script(spec(own_script=True), FULL) is None


def test_only_names_of_secrets_are_masked() -> None:
    assert masked({"HOME": "/root", "api_token": "x"}) == {"HOME": "/root", "api_token": "***"}
