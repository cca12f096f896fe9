"""Queries to CloudFormation over a real socket: moto, and scripted events, which moto lacks."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from infraforge_runner.infraforge import cloudformation
from infraforge_runner.infraforge.cdk import ResourceFailure
from infraforge_runner.infraforge.cloudformation import AwsQueryError
from tests.async_tests import async_test
from tests.infraforge_runner.local_cloudformation import LocalAws, local_aws

REGION = "us-west-2"
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
TAKEN_ROLE = ResourceFailure("Role", "AWS::IAM::Role", "EntityAlreadyExists: Role with name taken already exists.")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalAws]:
    """One for all tests: its first responses, and the SDK's first requests, take seconds."""
    with local_aws() as local, pytest.MonkeyPatch.context() as environment:
        for name, value in local.environment.items():
            environment.setenv(name, value)
        create_stack(local, "first", "first")
        asyncio.run(cloudformation.get_stack_status(REGION, "first"))
        asyncio.run(cloudformation.list_availability_zones(REGION))
        yield local


@pytest.fixture
def aws(server: LocalAws) -> LocalAws:
    server.reset()
    return server


def role_template(role: str) -> str:
    resource = {"Type": "AWS::IAM::Role", "Properties": {"RoleName": role, "AssumeRolePolicyDocument": {}}}
    return json.dumps({"Resources": {"Role": resource}, "Outputs": {"Name": {"Value": {"Ref": "Role"}}}})


def create_stack(aws: LocalAws, name: str, role: str) -> None:
    client = aws.client("cloudformation")
    client.create_change_set(
        StackName=name, ChangeSetName="first", TemplateBody=role_template(role), ChangeSetType="CREATE"
    )
    client.execute_change_set(StackName=name, ChangeSetName="first")


async def wait_for_end(aws: LocalAws, name: str) -> str:
    client = aws.client("cloudformation")
    while (state := client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]).endswith("_IN_PROGRESS"):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    return str(state)


@async_test
async def test_complete_stack_has_outputs_and_no_failures(aws: LocalAws) -> None:
    create_stack(aws, "good", "free")
    assert await wait_for_end(aws, "good") == "CREATE_COMPLETE"
    assert await cloudformation.get_stack_outputs(REGION, "good") == {"Name": "free"}
    assert await cloudformation.list_failed_resources(REGION, "good", EPOCH) == []
    assert "it stands there as CREATE_COMPLETE" in await cloudformation.describe_ongoing_operation(REGION, "good")


@async_test
async def test_failed_stack_lists_failed_resources(aws: LocalAws) -> None:
    aws.create_role("taken")
    create_stack(aws, "bad", "taken")
    assert await wait_for_end(aws, "bad") == "ROLLBACK_COMPLETE"
    assert await cloudformation.list_failed_resources(REGION, "bad", EPOCH) == [TAKEN_ROLE]
    assert await cloudformation.list_failed_resources(REGION, "bad", datetime.now(UTC) + timedelta(seconds=5)) == []


@async_test
async def test_ongoing_operation_is_described_until_complete(aws: LocalAws) -> None:
    aws.gate.block()
    create_stack(aws, "slow", "free")
    assert (
        "still at work on the stack slow in us-west-2 (CREATE_IN_PROGRESS)"
        in await cloudformation.describe_ongoing_operation(REGION, "slow")
    )
    aws.gate.allow()
    assert await wait_for_end(aws, "slow") == "CREATE_COMPLETE"


@async_test
async def test_unknown_stack_is_no_error(aws: LocalAws) -> None:
    assert await cloudformation.get_stack_status(REGION, "none") is None
    assert await cloudformation.get_stack_outputs(REGION, "none") == {}
    assert await cloudformation.list_failed_resources(REGION, "none", EPOCH) == []
    assert (await cloudformation.describe_ongoing_operation(REGION, "none")).startswith(
        "CloudFormation has no stack none in us-west-2:"
    )


@async_test
async def test_availability_zones_are_in_order_of_ec2(aws: LocalAws) -> None:
    assert await cloudformation.list_availability_zones(REGION) == [
        "us-west-2a",
        "us-west-2b",
        "us-west-2c",
        "us-west-2d",
    ]
    assert await cloudformation.has_credentials()


@async_test
async def test_query_without_credentials_raises_query_error(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert not await cloudformation.has_credentials()
    with pytest.raises(
        AwsQueryError, match=r"^AWS could not be asked which availability zones there are: .*credentials"
    ):
        await cloudformation.list_availability_zones(REGION)
    assert "may still be at work on the stack s" in await cloudformation.describe_ongoing_operation(REGION, "s")


@async_test
async def test_query_with_unknown_profile_raises_query_error(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert not await cloudformation.has_credentials()
    with pytest.raises(AwsQueryError, match="nobody"):
        await cloudformation.get_stack_status(REGION, "s")


@async_test
async def test_query_times_out_if_aws_is_unreachable_or_silent(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(AwsQueryError, match="how the stack s stands"):
            await cloudformation.get_stack_status(REGION, "s")
        mute.listen()
        with (
            patch.object(cloudformation, "QUERY_TIMEOUT", 0.5),
            pytest.raises(AwsQueryError, match=r"did not say within 0 s|within 0\.5"),
        ):
            await cloudformation.get_stack_status(REGION, "s")


def stack_event(resource: str, state: str, reason: str = "", **more: Any) -> dict[str, Any]:
    of_stack = resource == "s"
    return {
        "StackId": "arn:s",
        "LogicalResourceId": resource,
        "PhysicalResourceId": "arn:s" if of_stack else resource,
        "ResourceType": "AWS::CloudFormation::Stack" if of_stack else "AWS::EKS::Cluster",
        "ResourceStatus": state,
        "ResourceStatusReason": reason,
        "Timestamp": datetime.now(UTC),
        **more,
    }


# Newest first, as CloudFormation gives them: an update that failed, after a creation in which something else did.
EVENTS = [
    stack_event("s", "UPDATE_ROLLBACK_COMPLETE"),
    stack_event("Other", "UPDATE_FAILED", "Resource update cancelled"),
    stack_event("Second", "UPDATE_FAILED", "for the first's sake"),
    stack_event("First", "UPDATE_FAILED", "the quota"),
    stack_event("s", "UPDATE_IN_PROGRESS", "User Initiated"),
    stack_event("s", "CREATE_COMPLETE"),
    stack_event("Old", "CREATE_FAILED", "long ago"),
    stack_event("s", "CREATE_IN_PROGRESS", "User Initiated"),
]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (EVENTS, [("First", "the quota"), ("Second", "for the first's sake")]),
        (EVENTS[5:], [("Old", "long ago")]),
        ([stack_event("s", "DELETE_FAILED", "it is protected"), *EVENTS[4:]], [("s", "it is protected")]),
        (
            [stack_event("s", "DELETE_FAILED", "of those"), stack_event("Kept", "DELETE_FAILED", "in use"), EVENTS[4]],
            [("Kept", "in use")],
        ),
    ],
)
@async_test
async def test_failed_resources_are_of_newest_operation_first_cause_first(
    aws: LocalAws, events: list[dict[str, Any]], expected: list[tuple[str, str]]
) -> None:
    class Pages:
        def __init__(self, *arguments: Any) -> None: ...

        def paginate(self, StackName: str) -> Any:  # noqa: N803 - the SDK's name
            async def pages() -> Any:
                for event in events:
                    yield {"StackEvents": [event]}

            return pages()

    with patch("aiobotocore.client.AioBaseClient.get_paginator", Pages):
        failures = await cloudformation.list_failed_resources(REGION, "s", EPOCH)
    assert [(failure.resource, failure.reason) for failure in failures] == expected
