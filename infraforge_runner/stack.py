"""What AWS knows of a stack: its state, its outputs, what failed; and the zones of a region.

The only one of the runner that talks to AWS. Credentials, profiles, roles and endpoints are the SDK's to find.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from infraforge_runner.cdk import Failure, is_consequence

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

DEADLINE: Final = 15.0  # seconds for one question, its retry and all its pages
CONNECT: Final = 3.0
READ: Final = 5.0

# The first event of an operation, with the words that CloudFormation has for whoever asked for it.
_BEGINNINGS: Final = frozenset({"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS"})
_BY_REQUEST: Final = "User Initiated"


class StackUnknown(Exception):
    """AWS could not be asked, or did not say. Its message is a sentence."""


async def has_credentials() -> bool:
    """Whether the SDK finds any; whether they are right, only AWS can say."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await (await asyncio.to_thread(_session)).get_credentials() is not None
    except Exception:  # a profile that is not there, a role that can't be had: all mean the same here
        return False


async def zones(region: str) -> list[str]:
    """The names of the account's zones, in EC2's own order: InfraForge counts them. Raises StackUnknown."""
    async with _asking("ec2", region, "which availability zones there are") as client:
        answer = await client.describe_availability_zones()
        return [zone["ZoneName"] for zone in answer["AvailabilityZones"] if "ZoneName" in zone]


async def status(region: str, stack: str) -> str | None:
    """CloudFormation's word for the stack's state; None where there is no such stack. Raises StackUnknown."""
    found = await _describe(region, stack)
    return None if found is None else str(found["StackStatus"])


async def outputs(region: str, stack: str) -> dict[str, str]:
    """The stack's outputs; none where there is no such stack. Raises StackUnknown."""
    found = await _describe(region, stack)
    return {one["OutputKey"]: one["OutputValue"] for one in (found or {}).get("Outputs", [])}


async def failures(region: str, stack: str, since: datetime) -> list[Failure]:
    """What failed in the stack's newest operation, if that began after `since` (with an offset); the first cause first.

    What was only given up for another's sake is left out. Raises StackUnknown.
    """
    found: list[Failure] = []
    of_stack: list[Failure] = []
    async with _asking("cloudformation", region, f"why the stack {stack} failed") as client:
        pages = client.get_paginator("describe_stack_events").paginate(StackName=stack)
        async for event in _newest_operation(pages, since):
            reason = event.get("ResourceStatusReason", "")
            if event["ResourceStatus"].endswith("_FAILED") and not is_consequence(reason):
                failure = Failure(event["LogicalResourceId"], event.get("ResourceType", ""), reason)
                (of_stack if _is_of_stack(event) else found).append(failure)
    return (found or of_stack)[::-1]


async def still_doing(region: str, stack: str) -> str:
    """A sentence about what CloudFormation goes on with after a job was stopped: that stops only the script."""
    try:
        state = await status(region, stack)
    except StackUnknown as error:
        return f"{error} CloudFormation may still be at work on the stack {stack}: look at it before the next job."
    if state is None:
        return f"CloudFormation has no stack {stack} in {region}: there is nothing that it goes on with."
    if state.endswith("_IN_PROGRESS") and state != "REVIEW_IN_PROGRESS":
        return (
            f"CloudFormation is still at work on the stack {stack} in {region} ({state}): it does not stop with the "
            "script. Wait until it has ended, then deploy again or destroy the stack."
        )
    return f"CloudFormation is not at work on the stack {stack} in {region}: it stands there as {state}."


async def _describe(region: str, stack: str) -> dict[str, Any] | None:
    async with _asking("cloudformation", region, f"how the stack {stack} stands") as client:
        found = (await client.describe_stacks(StackName=stack))["Stacks"]
        return found[0] if found else None
    return None  # it is not there


async def _newest_operation(pages: Any, since: datetime) -> AsyncIterator[dict[str, Any]]:
    """The events of the operation that began last, newest first."""
    async for page in pages:
        for event in page["StackEvents"]:
            if event["Timestamp"] < since:
                return
            yield event
            is_first = event["ResourceStatus"] in _BEGINNINGS and event.get("ResourceStatusReason") == _BY_REQUEST
            if is_first and _is_of_stack(event):
                return


def _is_of_stack(event: dict[str, Any]) -> bool:
    return bool(event.get("PhysicalResourceId") == event["StackId"])


@asynccontextmanager
async def _asking(service: str, region: str, what: str) -> AsyncIterator[Any]:
    """A client, for one question. That the stack is not there ends the block; all else is StackUnknown."""
    try:
        async with asyncio.timeout(DEADLINE):
            session, config = await asyncio.to_thread(_load, service)
            async with session.create_client(service, region_name=region, config=config) as client:
                yield client
    except TimeoutError as error:
        raise StackUnknown(f"AWS did not say within {DEADLINE:.0f} s {what}.") from error
    except Exception as error:
        if not _is_missing(error):
            raise StackUnknown(f"AWS could not be asked {what}: {_words(error)}") from error


def _is_missing(error: Exception) -> bool:
    """CloudFormation's way to say that there is no such stack."""
    said = getattr(error, "response", {}).get("Error", {})
    return said.get("Code") == "ValidationError" and "does not exist" in said.get("Message", "")


def _words(error: Exception) -> str:
    words = " ".join(str(error).split())[:500] or type(error).__name__
    return words if words.endswith(".") else f"{words}."


def _load(service: str) -> tuple[AioSession, Any]:
    """In a thread: the SDK's import and its descriptions of services would hold the loop for 0.3 s."""
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - as said

    session = _session()
    for path in ("_retry", "endpoints", "partitions", "sdk-default-configuration"):
        _loader().load_data_with_path(path)
    for kind in ("service-2", "endpoint-rule-set-1"):
        _loader().load_service_model(service, kind)
    retries = {"total_max_attempts": 2, "mode": "standard"}
    return session, AioConfig(connect_timeout=CONNECT, read_timeout=READ, retries=retries, user_agent_extra="forgeline")


def _session() -> AioSession:
    """A new one each time: it would keep the credentials that it has found."""
    from aiobotocore.session import get_session  # noqa: PLC0415 - as said

    logging.getLogger("botocore").setLevel(logging.CRITICAL)  # what it says comes out of the call as well
    session = get_session()
    session.register_component("data_loader", _loader())
    return session


@cache
def _loader() -> Any:
    """It keeps the descriptions of services that it has read."""
    from botocore.loaders import create_loader  # noqa: PLC0415 - as said

    return create_loader()
