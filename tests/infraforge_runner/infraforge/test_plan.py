"""The plan of a dry run: configuration, difference, command, and what could not be checked."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from infraforge_runner.infraforge.plan import (
    AvailableTools,
    LiveCommand,
    build_plan,
    diff_configs,
    diff_from_applied,
    list_deploy_unchecked,
    list_unchecked,
    mask_environment,
    select_check_script,
)
from infraforge_runner.infraforge.presets import SCRIPTS_FOLDER, Action
from infraforge_runner.infraforge.rendering import render
from infraforge_runner.infraforge.stack_records import StackRecord
from infraforge_runner.jobs.model import JobSpec
from tests.infraforge_runner.infraforge.test_rendering import SHIPPED_PRESETS

NO_TOOLS = AvailableTools(
    checkout_problem="InfraForge is not set up.", has_cdk=False, has_node=False, has_credentials=False
)
ALL_TOOLS = AvailableTools(checkout_problem=None, has_cdk=True, has_node=True, has_credentials=True)
LIVE = LiveCommand(
    "bash deploy.sh", {"AWS_SECRET_ACCESS_KEY": "hidden", "MY_PASSWORD": "hidden", "AWS_REGION": "us-east-1"}
)


def make_spec(action: Action = "deploy", *, own_script: bool = False, **overrides: Any) -> JobSpec:
    rendered = render(SHIPPED_PRESETS["small"], "small", overrides)
    return JobSpec(
        job_id="1",
        action=action,
        preset_name="small",
        preset=SHIPPED_PRESETS["small"],
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


def make_record(
    spec: JobSpec, state: Literal["standing", "uncertain"] = "standing", since: str | None = "2026"
) -> StackRecord:
    return StackRecord(
        stack_name=spec.stack_name,
        region=spec.region,
        preset="small",
        job_id="0",
        since=since,
        state=state,
        config=spec.config,
        variables={},
    )


def test_plan_masks_secret_variables() -> None:
    spec = make_spec(cluster_tag="demo")
    plan = build_plan(spec, LIVE, spec.config, diff_from_applied(None, spec.config), list_unchecked(spec, NO_TOOLS))
    assert plan.config["global"]["stackName"] == "forgeline-small-demo"
    assert plan.command == "bash deploy.sh"
    assert plan.environment == {"AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": "***", "MY_PASSWORD": "***"}
    assert "EKS cluster small-demo" in plan.names
    assert "+ forges.hyperpod.defaults.instanceCount: 1" in plan.diff
    assert all(line.startswith("+ ") for line in plan.diff)


def test_plan_diff_is_against_applied_config() -> None:
    before, after = make_spec(), make_spec(gpu_instance_count=3)
    plan = build_plan(after, LIVE, after.config, diff_from_applied(make_record(before), after.config), [])
    assert plan.diff == [
        "- forges.hyperpod.defaults.instanceCount: 1",
        "+ forges.hyperpod.defaults.instanceCount: 3",
    ]
    assert diff_from_applied(make_record(before), before.config) == []


def test_plan_diff_of_never_deployed_stack_is_whole_config() -> None:
    spec = make_spec()
    diff = diff_from_applied(make_record(spec, "uncertain", since=None), spec.config)
    assert "+ forges.hyperpod.defaults.instanceCount: 1" in diff


def test_diff_lists_added_and_removed_values() -> None:
    before = {"a": {"b": True, "gone": 1}, "list": [1, 2]}
    after = {"a": {"b": "true"}, "list": [1], "new": None}
    assert diff_configs(before, after) == ["+ new: null", "- a.gone: 1", "- list.1: 2"]


def test_destroy_plan_lists_names() -> None:
    spec = make_spec("destroy")
    plan = build_plan(spec, LIVE, spec.config, [], [])
    assert "HyperPod cluster forgeline-small" in plan.names


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (NO_TOOLS, ["InfraForge is not set up.", "cdk is not on", "node is not on", "no credentials"]),
        (ALL_TOOLS, ["quotas", "bootstrapped in us-east-1"]),
    ],
)
def test_unchecked_lists_missing_tools_and_unknown_facts(machine: AvailableTools, words: list[str]) -> None:
    sentences = [*list_unchecked(make_spec(), machine), *list_deploy_unchecked(make_spec())]
    for word in words:
        assert any(word in sentence for sentence in sentences)
    assert all(sentence.endswith((".", ")")) for sentence in sentences)


def test_unchecked_lists_zone_without_credentials() -> None:
    spec = make_spec(availability_zone="us-east-1b")
    assert any("us-east-1b was not looked up" in sentence for sentence in list_unchecked(spec, NO_TOOLS))
    assert not any("us-east-1b" in sentence for sentence in list_unchecked(spec, ALL_TOOLS))


def test_unchecked_of_own_script_omits_tools() -> None:
    first, *_ = list_unchecked(make_spec(own_script=True), NO_TOOLS)
    assert first == "The preset's own script was not run: only it knows what it does on deploy."
    assert not any("cdk" in sentence for sentence in list_unchecked(make_spec("destroy", own_script=True), NO_TOOLS))


def test_check_script_needs_all_tools() -> None:
    assert select_check_script(make_spec(), ALL_TOOLS) == SCRIPTS_FOLDER / "diff.sh"
    assert select_check_script(make_spec(), NO_TOOLS) is None
    assert select_check_script(make_spec(own_script=True), ALL_TOOLS) is None


def test_mask_environment_masks_secret_names_only() -> None:
    assert mask_environment({"HOME": "/root", "api_token": "x"}) == {"HOME": "/root", "api_token": "***"}
