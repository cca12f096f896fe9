"""A local AWS for the CDK: moto's server, with a CloudFormation that works as AWS's does where moto's does not.

moto executes a change set at once and in silence: no events of resources, no outputs, no rollback. Here it is executed
in the background, resource by resource, each with its events; what fails is rolled back; and `gate` can hold it.

    with local_aws() as aws:
        aws.environment             # what a client of it needs
        aws.gate.block()            # stacks stop before their next resource ...
        aws.gate.allow(2)           # ... and create two more, or, without a number, all
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import requests
from botocore.session import get_session
from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Event, Stack
from moto.cloudtrail.responses import CloudTrailResponse
from moto.server import ThreadedMotoServer

KEY = "AKIAFORGELINETEST000"
SECRET = "forgeline/secret+for/tests"  # noqa: S105 - it opens nothing
GATE_SECONDS = 60.0  # after which a blocked gate opens: a test that fails must not keep threads


class ResourceGate:
    """Limits how many resources stacks may create; no limit at first."""

    def __init__(self) -> None:
        self._allowed = math.inf  # resources that may pass
        self._changed = threading.Condition()

    def block(self) -> None:
        self._set_allowed(0)

    def allow(self, resources: float = math.inf) -> None:
        self._set_allowed(resources)

    def pass_through(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._allowed > 0, GATE_SECONDS)
            self._allowed -= 1

    def _set_allowed(self, resources: float) -> None:
        with self._changed:
            self._allowed = resources
            self._changed.notify_all()


@dataclass
class LocalAws:
    url: str
    region: str = "us-west-2"
    gate: ResourceGate = field(default_factory=ResourceGate)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """The SDK's blocking client, to prepare and to inspect the account."""
        return get_session().create_client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def create_role(self, name: str) -> None:
        """Create an IAM role, so that a stack's creation of it fails."""
        self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")

    def reset(self) -> None:
        """Remove all stacks and resources."""
        self.gate.allow()
        requests.post(f"{self.url}/moto-api/reset", timeout=GATE_SECONDS).raise_for_status()


@contextmanager
def local_aws() -> Iterator[LocalAws]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    aws = LocalAws(f"http://{host}:{port}")
    work = _StackOperations(aws.gate)
    with (
        patch.object(CloudFormationBackend, "execute_change_set", work.execute),
        patch.object(parsing, "parse_and_create_resource", work.create),
        # After a failure the CDK asks CloudTrail, and would ask moto, which has no answer, for 20 s.
        patch.object(CloudTrailResponse, "lookup_events", lambda response: '{"Events": []}', create=True),
    ):
        try:
            aws.reset()  # moto's state is the whole process's: another test's stacks may be left
            yield aws
        finally:
            aws.gate.allow()
            work.finish()
            server.stop()


class _StackOperations:
    """The operations in progress, one thread each; moto creates resources in the calling thread."""

    def __init__(self, gate: ResourceGate) -> None:
        self._gate = gate
        self._create = parsing.parse_and_create_resource
        self._local = threading.local()
        self._threads: list[threading.Thread] = []

    @property
    def execute(self) -> Any:
        def execute_change_set(
            backend: CloudFormationBackend, change_set_name: str, stack_name: str | None = None
        ) -> None:
            change_set = backend.describe_change_set(change_set_name)
            assert change_set is not None
            change_set.execution_status = "EXECUTE_IN_PROGRESS"
            kind = change_set.change_set_type
            _add_event(change_set.stack, f"{kind}_IN_PROGRESS", "User Initiated")
            thread = threading.Thread(target=self._apply, args=(change_set, kind))
            self._threads.append(thread)
            thread.start()

        return execute_change_set

    @property
    def create(self) -> Any:
        def parse_and_create_resource(logical_id: str, resource_json: dict[str, Any], *rest: Any, **named: Any) -> Any:
            stack = getattr(self._local, "stack", None)
            if stack is None:
                return self._create(logical_id, resource_json, *rest, **named)
            resource = logical_id, resource_json["Type"]
            _add_event(stack, "CREATE_IN_PROGRESS", None, *resource)
            self._gate.pass_through()
            try:
                created = self._create(logical_id, resource_json, *rest, **named)
            except Exception as error:
                _add_event(stack, "CREATE_FAILED", str(error), *resource)
                raise
            _add_event(stack, "CREATE_COMPLETE", None, *resource)
            return created

        return parse_and_create_resource

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(GATE_SECONDS)

    def _apply(self, change_set: ChangeSet, kind: str) -> None:
        stack = self._local.stack = change_set.stack
        try:
            change_set.apply()
            stack.template = change_set.template
            stack._parse_template()
            stack.output_map = stack._create_output_map()
            _add_event(stack, f"{kind}_COMPLETE")
        except Exception:  # of any type; the resource's event has the reason
            self._roll_back(stack, "" if kind == "CREATE" else "UPDATE_")
        change_set.execution_status = "EXECUTE_COMPLETE"

    def _roll_back(self, stack: Stack, prefix: str) -> None:
        failed = [event.logical_resource_id for event in stack.events if event.resource_status == "CREATE_FAILED"]
        reason = f"The following resource(s) failed to create: [{', '.join(failed)}]. Rollback requested by user."
        _add_event(stack, f"{prefix}ROLLBACK_IN_PROGRESS", reason)
        if not prefix:
            stack.resource_map.delete()
        _add_event(stack, f"{prefix}ROLLBACK_COMPLETE")


def _add_event(
    stack: Stack, status: str, reason: str | None = None, logical_id: str | None = None, type: str | None = None
) -> None:
    """Add an event of a resource, or, without `logical_id`, of the stack, and set the stack's status."""
    event = Event(
        stack_id=stack.stack_id,
        stack_name=stack.name,
        logical_resource_id=logical_id or stack.name,
        physical_resource_id=f"{stack.name}-{logical_id}" if logical_id else stack.stack_id,
        resource_type=type or "AWS::CloudFormation::Stack",
        resource_status=status,
        resource_status_reason=reason,
        resource_properties=None,
    )
    stack.events.append(event)
    if logical_id is None:
        stack.status = status
