"""Queries to CloudFormation and EC2: a stack's state, outputs and failed resources; the zones of a region."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from importlib import import_module
from typing import Any, Final

from infraforge_runner.infraforge.cdk import ResourceFailure, is_secondary_failure

QUERY_TIMEOUT: Final = 15.0  # seconds for one query, its retry and all its pages
CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 5.0
MAX_ATTEMPTS: Final = 2

# The first event of an operation has one of these states, and CloudFormation's reason for an operation by request.
_FIRST_STATES: Final = frozenset(
    {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS"}
)
_BY_REQUEST: Final = "User Initiated"


class AwsQueryError(Exception):
    """AWS could not be asked, or did not answer in time. Its message is a sentence."""


async def has_credentials() -> bool:
    """Whether the SDK finds any; whether they are right, only AWS can say."""
    try:
        async with asyncio.timeout(QUERY_TIMEOUT):
            await _import_sdk()
            from pipeline.aws import clients  # noqa: PLC0415 - see _import_sdk

            return await clients.has_credentials()
    except Exception:  # a profile that is not there, a role that can't be assumed: all mean the same here
        return False


async def list_availability_zones(region: str) -> list[str]:
    """The names of the account's zones, in EC2's own order: InfraForge counts them. Raises AwsQueryError."""
    async with _query("ec2", region, "which availability zones there are") as client:
        response = await client.describe_availability_zones()
        return [zone["ZoneName"] for zone in response["AvailabilityZones"] if "ZoneName" in zone]


async def get_stack_status(region: str, stack: str) -> str | None:
    """CloudFormation's word for the stack's state; None where there is no such stack. Raises AwsQueryError."""
    description = await _describe_stack(region, stack)
    return None if description is None else str(description["StackStatus"])


async def get_stack_outputs(region: str, stack: str) -> dict[str, str]:
    """The stack's outputs; none where there is no such stack. Raises AwsQueryError."""
    description = await _describe_stack(region, stack)
    return {output["OutputKey"]: output["OutputValue"] for output in (description or {}).get("Outputs", [])}


async def list_failed_resources(region: str, stack: str, since: datetime) -> list[ResourceFailure]:
    """What failed in the stack's newest operation, if that began after `since` (with an offset); the first cause first.

    Resources that were only cancelled because of another are left out. The stack itself counts where nothing else
    failed. Raises AwsQueryError.
    """
    failures: list[ResourceFailure] = []
    stack_failures: list[ResourceFailure] = []
    async with _query("cloudformation", region, f"why the stack {stack} failed") as client:
        pages = client.get_paginator("describe_stack_events").paginate(StackName=stack)
        async for event in _newest_operation(pages, since):
            reason = event.get("ResourceStatusReason", "")
            if event["ResourceStatus"].endswith("_FAILED") and not is_secondary_failure(reason):
                failure = ResourceFailure(event["LogicalResourceId"], event.get("ResourceType", ""), reason)
                (stack_failures if _is_of_stack(event) else failures).append(failure)
    return (failures or stack_failures)[::-1]


async def describe_ongoing_operation(region: str, stack: str) -> str:
    """A sentence about what CloudFormation goes on with after a job was stopped: that stops only the script."""
    try:
        status = await get_stack_status(region, stack)
    except AwsQueryError as error:
        return f"{error} CloudFormation may still be at work on the stack {stack}: look at it before the next job."
    if status is None:
        return f"CloudFormation has no stack {stack} in {region}: there is nothing that it goes on with."
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        return (
            f"CloudFormation is still at work on the stack {stack} in {region} ({status}): it does not stop with the "
            "script. Wait until it has ended, then deploy again or destroy the stack."
        )
    return f"CloudFormation is not at work on the stack {stack} in {region}: it stands there as {status}."


async def _describe_stack(region: str, stack: str) -> dict[str, Any] | None:
    async with _query("cloudformation", region, f"how the stack {stack} stands") as client:
        stacks = (await client.describe_stacks(StackName=stack))["Stacks"]
        return stacks[0] if stacks else None
    return None  # there is no such stack


async def _newest_operation(pages: Any, since: datetime) -> AsyncIterator[dict[str, Any]]:
    """The events of the operation that began last, newest first."""
    async for page in pages:
        for event in page["StackEvents"]:
            if event["Timestamp"] < since:
                return
            yield event
            is_first = event["ResourceStatus"] in _FIRST_STATES and event.get("ResourceStatusReason") == _BY_REQUEST
            if is_first and _is_of_stack(event):
                return


def _is_of_stack(event: dict[str, Any]) -> bool:
    return bool(event.get("PhysicalResourceId") == event["StackId"])


@asynccontextmanager
async def _query(service: str, region: str, question: str) -> AsyncIterator[Any]:
    """A client for one query. A stack that does not exist ends the block; any other error is an AwsQueryError."""
    try:
        async with asyncio.timeout(QUERY_TIMEOUT):
            await _import_sdk()
            from pipeline.aws.clients import ClientSettings, open_client  # noqa: PLC0415 - see _import_sdk

            settings = ClientSettings(CONNECT_TIMEOUT, READ_TIMEOUT, MAX_ATTEMPTS)
            async with open_client(service, region, settings) as client:
                yield client
    except TimeoutError as error:
        raise AwsQueryError(f"AWS did not say within {QUERY_TIMEOUT:.0f} s {question}.") from error
    except Exception as error:
        from pipeline.aws.errors import describe_error, error_response  # noqa: PLC0415 - see _import_sdk

        code, message = error_response(error)
        if code != "ValidationError" or "does not exist" not in message:  # CloudFormation's words for no such stack
            words = describe_error(error) or type(error).__name__
            sentence = words if words.endswith(".") else f"{words}."
            raise AwsQueryError(f"AWS could not be asked {question}: {sentence}") from error


async def _import_sdk() -> None:
    """Import the SDK in a thread, for the first query: it takes too long for the loop and for a supervisor's start."""
    await asyncio.to_thread(import_module, "pipeline.aws.clients")
