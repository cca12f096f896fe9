"""What AWS knows of a stack, asked over a real socket: moto's, and for what moto has not a script of answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from infraforge_runner import stack
from infraforge_runner.cdk import Failure
from infraforge_runner.stack import StackUnknown
from tests.aio import asynchronous
from tests.infraforge_runner.cloudformation import LocalAws, local_aws

REGION = "us-west-2"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TAKEN = Failure("Role", "AWS::IAM::Role", "EntityAlreadyExists: Role with name taken already exists.")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalAws]:
    """One for all: its first answers, and the SDK's first questions, take seconds."""
    with local_aws() as local, pytest.MonkeyPatch.context() as environment:
        for name, value in local.environment.items():
            environment.setenv(name, value)
        deploy(local, "first", "first")
        asyncio.run(stack.status(REGION, "first"))
        asyncio.run(stack.zones(REGION))
        yield local


@pytest.fixture
def aws(server: LocalAws) -> LocalAws:
    server.empty()
    return server


def template(role: str) -> str:
    made = {"Type": "AWS::IAM::Role", "Properties": {"RoleName": role, "AssumeRolePolicyDocument": {}}}
    return json.dumps({"Resources": {"Role": made}, "Outputs": {"Name": {"Value": {"Ref": "Role"}}}})


def deploy(aws: LocalAws, name: str, role: str) -> None:
    client = aws.client("cloudformation")
    client.create_change_set(StackName=name, ChangeSetName="first", TemplateBody=template(role), ChangeSetType="CREATE")
    client.execute_change_set(StackName=name, ChangeSetName="first")


async def ended(aws: LocalAws, name: str) -> str:
    client = aws.client("cloudformation")
    while (state := client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]).endswith("_IN_PROGRESS"):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    return str(state)


@asynchronous
async def test_a_stack_that_stands_has_its_outputs_and_no_failures(aws: LocalAws) -> None:
    deploy(aws, "good", "free")
    assert await ended(aws, "good") == "CREATE_COMPLETE"
    assert await stack.outputs(REGION, "good") == {"Name": "free"}
    assert await stack.failures(REGION, "good", LONG_AGO) == []
    assert "it stands there as CREATE_COMPLETE" in await stack.still_doing(REGION, "good")


@asynchronous
async def test_a_stack_that_failed_says_which_resource_and_why(aws: LocalAws) -> None:
    aws.take_role("taken")
    deploy(aws, "bad", "taken")
    assert await ended(aws, "bad") == "ROLLBACK_COMPLETE"
    assert await stack.failures(REGION, "bad", LONG_AGO) == [TAKEN]
    assert await stack.failures(REGION, "bad", datetime.now(UTC) + timedelta(seconds=5)) == []


@asynchronous
async def test_what_goes_on_after_a_cancel_is_told(aws: LocalAws) -> None:
    aws.gate.close()
    deploy(aws, "slow", "free")
    assert "still at work on the stack slow in us-west-2 (CREATE_IN_PROGRESS)" in await stack.still_doing(
        REGION, "slow"
    )
    aws.gate.open()
    assert await ended(aws, "slow") == "CREATE_COMPLETE"


@asynchronous
async def test_a_stack_that_is_not_there_is_no_error(aws: LocalAws) -> None:
    assert await stack.status(REGION, "none") is None
    assert await stack.outputs(REGION, "none") == {}
    assert await stack.failures(REGION, "none", LONG_AGO) == []
    assert (await stack.still_doing(REGION, "none")).startswith("CloudFormation has no stack none in us-west-2:")


@asynchronous
async def test_the_zones_come_in_the_order_in_which_infraforge_counts_them(aws: LocalAws) -> None:
    assert await stack.zones(REGION) == ["us-west-2a", "us-west-2b", "us-west-2c", "us-west-2d"]
    assert await stack.has_credentials()


@asynchronous
async def test_without_credentials_nothing_can_be_asked(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert not await stack.has_credentials()
    with pytest.raises(
        StackUnknown, match=r"^AWS could not be asked which availability zones there are: .*credentials"
    ):
        await stack.zones(REGION)
    assert "may still be at work on the stack s" in await stack.still_doing(REGION, "s")


@asynchronous
async def test_a_profile_that_is_not_there_is_no_traceback(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert not await stack.has_credentials()
    with pytest.raises(StackUnknown, match="nobody"):
        await stack.status(REGION, "s")


@asynchronous
async def test_an_aws_that_is_not_reached_or_never_answers_is_given_up(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(StackUnknown, match="how the stack s stands"):
            await stack.status(REGION, "s")
        mute.listen()
        with (
            patch.object(stack, "DEADLINE", 0.5),
            pytest.raises(StackUnknown, match=r"did not say within 0 s|within 0\.5"),
        ):
            await stack.status(REGION, "s")


def event(resource: str, state: str, reason: str = "", **more: Any) -> dict[str, Any]:
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
    event("s", "UPDATE_ROLLBACK_COMPLETE"),
    event("Other", "UPDATE_FAILED", "Resource update cancelled"),
    event("Second", "UPDATE_FAILED", "for the first's sake"),
    event("First", "UPDATE_FAILED", "the quota"),
    event("s", "UPDATE_IN_PROGRESS", "User Initiated"),
    event("s", "CREATE_COMPLETE"),
    event("Old", "CREATE_FAILED", "long ago"),
    event("s", "CREATE_IN_PROGRESS", "User Initiated"),
]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (EVENTS, [("First", "the quota"), ("Second", "for the first's sake")]),
        (EVENTS[5:], [("Old", "long ago")]),
        ([event("s", "DELETE_FAILED", "it is protected"), *EVENTS[4:]], [("s", "it is protected")]),
        (
            [event("s", "DELETE_FAILED", "of those"), event("Kept", "DELETE_FAILED", "in use"), EVENTS[4]],
            [("Kept", "in use")],
        ),
    ],
)
@asynchronous
async def test_only_the_newest_operation_counts_and_its_first_cause_comes_first(
    aws: LocalAws, events: list[dict[str, Any]], expected: list[tuple[str, str]]
) -> None:
    class Pages:
        def __init__(self, *arguments: Any) -> None: ...

        def paginate(self, StackName: str) -> Any:  # noqa: N803 - the SDK's name
            async def pages() -> Any:
                for one in events:
                    yield {"StackEvents": [one]}

            return pages()

    with patch("aiobotocore.client.AioBaseClient.get_paginator", Pages):
        found = await stack.failures(REGION, "s", LONG_AGO)
    assert [(one.resource, one.reason) for one in found] == expected
