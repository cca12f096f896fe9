"""A local AWS for the CDK: moto's server, with a CloudFormation that works as AWS's does where moto's does not.

moto executes a change set at once and in silence: no events of resources, no outputs, no rollback. Here it is executed
in the background, resource by resource, each with its events; what fails is rolled back; and `gate` can hold it.

    with local_aws() as aws:
        aws.environment             # what a client of it needs
        aws.gate.close()            # stacks stop before their next resource ...
        aws.gate.open(2)            # ... and make two more, or, without a number, all
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
GATE = 60.0  # seconds after which a closed gate opens: a test that fails must not hold threads


class Gate:
    """What holds stacks back; open at first."""

    def __init__(self) -> None:
        self._left = math.inf  # resources that may pass
        self._changed = threading.Condition()

    def close(self) -> None:
        self._let(0)

    def open(self, resources: float = math.inf) -> None:
        self._let(resources)

    def pass_through(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._left > 0, GATE)
            self._left -= 1

    def _let(self, resources: float) -> None:
        with self._changed:
            self._left = resources
            self._changed.notify_all()


@dataclass
class LocalAws:
    url: str
    region: str = "us-west-2"
    gate: Gate = field(default_factory=Gate)

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
        """The SDK's, which blocks: to look, and to put things there."""
        return get_session().create_client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def take_role(self, name: str) -> None:
        """Makes an IAM role, so that a stack can't."""
        self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")

    def empty(self) -> None:
        """As it was at first: no stack, no resource."""
        self.gate.open()
        requests.post(f"{self.url}/moto-api/reset", timeout=GATE).raise_for_status()


@contextmanager
def local_aws() -> Iterator[LocalAws]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    aws = LocalAws(f"http://{host}:{port}")
    work = _Work(aws.gate)
    with (
        patch.object(CloudFormationBackend, "execute_change_set", work.execute),
        patch.object(parsing, "parse_and_create_resource", work.create),
        # After a failure the CDK asks CloudTrail, and would ask moto, which has no answer, for 20 s.
        patch.object(CloudTrailResponse, "lookup_events", lambda response: '{"Events": []}', create=True),
    ):
        try:
            aws.empty()  # moto keeps what it has for the whole process: another test's stacks
            yield aws
        finally:
            aws.gate.open()
            work.finish()
            server.stop()


class _Work:
    """The operations under way. Each has a thread; moto makes resources in the thread that asks for them."""

    def __init__(self, gate: Gate) -> None:
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
            _tell(change_set.stack, f"{kind}_IN_PROGRESS", "User Initiated")
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
            of = logical_id, resource_json["Type"]
            _tell(stack, "CREATE_IN_PROGRESS", None, *of)
            self._gate.pass_through()
            try:
                made = self._create(logical_id, resource_json, *rest, **named)
            except Exception as error:
                _tell(stack, "CREATE_FAILED", str(error), *of)
                raise
            _tell(stack, "CREATE_COMPLETE", None, *of)
            return made

        return parse_and_create_resource

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(GATE)

    def _apply(self, change_set: ChangeSet, kind: str) -> None:
        stack = self._local.stack = change_set.stack
        try:
            change_set.apply()
            stack.template = change_set.template
            stack._parse_template()
            stack.output_map = stack._create_output_map()
            _tell(stack, f"{kind}_COMPLETE")
        except Exception:  # whatever moto makes of what it refuses; the resource's event says it
            self._roll_back(stack, "" if kind == "CREATE" else "UPDATE_")
        change_set.execution_status = "EXECUTE_COMPLETE"

    def _roll_back(self, stack: Stack, prefix: str) -> None:
        failed = [event.logical_resource_id for event in stack.events if event.resource_status == "CREATE_FAILED"]
        reason = f"The following resource(s) failed to create: [{', '.join(failed)}]. Rollback requested by user."
        _tell(stack, f"{prefix}ROLLBACK_IN_PROGRESS", reason)
        if not prefix:
            stack.resource_map.delete()
        _tell(stack, f"{prefix}ROLLBACK_COMPLETE")


def _tell(
    stack: Stack, status: str, reason: str | None = None, logical_id: str | None = None, type: str | None = None
) -> None:
    """An event of a resource; without one, of the stack, which has this status from now on."""
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
