"""What EMD leaves in an account: stacks, SageMaker endpoints, pipeline executions and keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from tests.aws import motoside
from tests.aws.motoside import ACCOUNT
from tests.aws.pipeline import STAGES, Execution, Pipeline

ENV_STACK = "EMD-Env"
KEYS_SECRET = "EMD-APIKey-Secrets"  # noqa: S105 - its name
EXECUTION_STATUSES = {"InProgress", "Failed", "Stopping", "Stopped", "Cancelled", "Superseded", "Succeeded"}
COMPLETE = {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
NOTHING = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {}}
CONSOLE = "https://console.aws.amazon.com/secretsmanager/secret?name=EMD-APIKey-Secrets&region="


@dataclass(frozen=True)
class Deployed:
    """One model, deployed or on its way."""

    model_id: str
    tag: str
    service: str
    status: str
    stack: str
    endpoint: str
    instance: str
    key: str | None

    @property
    def name(self) -> str:
        return f"{self.model_id}/{self.tag}"

    @property
    def is_served(self) -> bool:
        return self.status in COMPLETE


def stack_name(model_id: str, tag: str = "dev") -> str:
    """As EMD makes it: the tag is left out where it is `dev`."""
    name = model_id if tag == "dev" else f"{model_id}-{tag}"
    name = re.sub(r"[^-a-zA-Z0-9]", "", re.sub(r"[_.]", "-", name))
    return f"EMD-Model-{name.lower()}"


class Emd:
    """All methods touch moto's state: they run where that may be touched."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.router_url = ""
        self.pipeline = Pipeline()
        self.deployed: dict[str, Deployed] = {}

    @property
    def executions(self) -> list[Execution]:
        return self.pipeline.executions

    @property
    def keys(self) -> dict[str, str]:
        return {name: one.key for name, one in self.deployed.items() if one.key}

    def bootstrap(self) -> None:
        if not self.pipeline.exists:
            self.pipeline.exists = True
            self._stack(ENV_STACK, NOTHING, {})
            self._write_keys()

    def deploy(self, one: Deployed, stage: str) -> None:
        self.bootstrap()
        self._forget(one.name)
        self.deployed[one.name] = one
        if one.status in EXECUTION_STATUSES:
            self._execute(one, one.status, stage)
            return
        succeeded = one.status in COMPLETE or one.status.startswith("DELETE")
        doing = "InProgress" if one.status.endswith("_IN_PROGRESS") else "Failed"
        self._execute(one, "Succeeded" if succeeded else doing, "Deploy")
        has_endpoint = succeeded or one.status == "CREATE_IN_PROGRESS"
        has_endpoint = has_endpoint and one.service.startswith("sagemaker")
        template = self._template(one, has_endpoint=has_endpoint)
        if not succeeded:
            del template["Outputs"]
        stack = self._stack(one.stack, template, self._parameters(one))
        if has_endpoint:
            self._create_endpoint(one)
        self._set_status(one, stack)
        self._write_keys()

    def undeploy(self, name: str) -> None:
        self._forget(name)
        self._write_keys()

    def fill(self, stacks: int, executions: int) -> None:
        self.bootstrap()
        for number in range(stacks):
            self._stack(f"Other-{time.time_ns()}-{number}", NOTHING, {})
        others = [Execution({"ModelId": "other"}, "Succeeded", "Deploy") for _ in range(executions)]
        self.executions[:0] = others

    def is_in_service(self, endpoint: str, region: str) -> bool:
        found = motoside.backend("sagemaker", region).endpoints.values()
        return any(one.endpoint_name == endpoint and one.endpoint_status == "InService" for one in found)

    def at(self, endpoint: str) -> Deployed | None:
        """What is deployed at this endpoint."""
        return next((one for one in self.deployed.values() if one.endpoint == endpoint), None)

    def list_stacks(self, form: Mapping[str, str], region: str, page: int) -> bytes:
        """A page of ListStacks."""
        wanted = {value for name, value in form.items() if name.startswith("StackStatusFilter.member.")}
        stacks = list(reversed(motoside.backend("cloudformation", region).list_stacks(list(wanted) or None)))
        start = int(form.get("NextToken", "page-0").removeprefix("page-"))
        rows = "".join(_summary(stack) for stack in stacks[start : start + page])
        more = f"<NextToken>page-{start + page}</NextToken>" if start + page < len(stacks) else ""
        return (
            '<ListStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><ListStacksResult>'
            f"<StackSummaries>{rows}</StackSummaries>{more}</ListStacksResult>"
            "<ResponseMetadata><RequestId>b9b4b068-3a41-11e5-94eb-example</RequestId></ResponseMetadata>"
            "</ListStacksResponse>"
        ).encode()

    def _forget(self, name: str) -> None:
        """Takes the stack away, and the execution that has not ended. Others stay in the history."""
        before = self.deployed.pop(name, None)
        if before is None:
            return
        self.executions[:] = [one for one in self.executions if one.is_over or _name(one) != name]
        backend = motoside.backend("cloudformation", self.region)
        if any(stack.name == before.stack for stack in backend.stacks.values()):
            backend.delete_stack(before.stack)
        sagemaker = motoside.backend("sagemaker", self.region)
        if sagemaker.endpoints.pop(before.endpoint, None) is not None:
            sagemaker.delete_endpoint_config(f"{before.stack}-config")
            sagemaker.delete_model(f"{before.stack}-model")

    def _execute(self, one: Deployed, status: str, stage: str) -> None:
        assert stage in STAGES
        variables = {
            "ModelStackName": one.stack,
            "ModelId": one.model_id,
            "ModelTag": one.tag,
            "ServiceType": one.service,
            "InstanceType": one.instance,
            "EngineType": "vllm",
            "ExtraParams": "{}",
            "FrameworkType": "fastapi",
            "CreateTime": str(time.time()),
            "Region": self.region,
        }
        self.executions.insert(0, Execution(variables, status, stage))

    def _parameters(self, one: Deployed) -> dict[str, str]:
        usual = one.endpoint == f"{one.stack}-endpoint"
        endpoint = {"SageMakerEndpointName": "Auto-generate" if usual else one.endpoint}
        return {
            **(endpoint if one.service.startswith("sagemaker") else {}),
            "ECRImageURI": f"{ACCOUNT}.dkr.ecr.{self.region}.amazonaws.com/emd-{one.model_id.lower()}:latest",
            "InstanceType": f"ml.{one.instance}" if one.service.startswith("sagemaker") else one.instance,
            "ModelId": one.model_id,
            "ModelTag": one.tag,
            "FrameWorkType": "fastapi",
            "ServiceType": one.service,
            "EngineType": "vllm",
            "Region": self.region,
            "DNSName": self.router_url.removeprefix("http://"),
            "APIKey": "****",  # NoEcho, which moto takes no notice of
        }

    def _template(self, one: Deployed, *, has_endpoint: bool) -> dict[str, Any]:
        names = self._parameters(one)
        outputs: dict[str, Any] = {"Model": {"Value": one.name}}
        if one.service != "sagemaker_async":
            outputs["BaseURL"] = {"Value": self.router_url}
        if one.service == "ecs":
            outputs["ECSServiceConnect"] = {"Value": f"http://{one.stack.lower()}:8080"}
        if one.key:
            outputs["ModelAPIKey"] = {"Value": CONSOLE + self.region}
        if has_endpoint:
            outputs["SageMakerEndpointName"] = {"Value": one.endpoint}
        parameters = {name: {"Type": "String"} for name in names}
        return {**NOTHING, "Parameters": parameters, "Outputs": outputs}

    def _stack(self, name: str, template: Mapping[str, Any], parameters: dict[str, str]) -> Any:
        backend = motoside.backend("cloudformation", self.region)
        return backend.create_stack(name=name, template=json.dumps(template), parameters=parameters, tags={})

    def _create_endpoint(self, one: Deployed) -> None:
        """Not by the stack's template: moto's stacks give names of their own to what SageMaker has."""
        backend = motoside.backend("sagemaker", self.region)
        model, config = f"{one.stack}-model", f"{one.stack}-config"
        container = {"Image": self._parameters(one)["ECRImageURI"]}
        role = f"arn:aws:iam::{ACCOUNT}:role/emd"
        backend.create_model(model, role, container, {"SecurityGroupIds": [], "Subnets": []}, [], [])
        variant: dict[str, Any] = {"ModelName": model, "VariantName": "AllTraffic", "InitialInstanceCount": 1}
        variant |= {"InitialVariantWeight": 1, "InstanceType": "ml.g4dn.2xlarge"}  # moto knows no g5
        backend.create_endpoint_config(config, [variant], {}, {}, [], "")
        backend.create_endpoint(one.endpoint, config, [])
        status = {"CREATE_IN_PROGRESS": "Creating", "DELETE_IN_PROGRESS": "Deleting"}
        backend.endpoints[one.endpoint].endpoint_status = status.get(one.status, "InService")

    def _set_status(self, one: Deployed, stack: Any) -> None:
        stack.status = one.status
        if "FAILED" in one.status or "ROLLBACK" in one.status:
            stack._add_stack_event(
                "CREATE_FAILED", resource_status_reason="The primary container did not pass the ping"
            )

    def _write_keys(self) -> None:
        backend = motoside.backend("secretsmanager", self.region)
        text = json.dumps(self.keys)
        if any(secret.name == KEYS_SECRET for secret in backend.secrets.values()):
            backend.put_secret_value(KEYS_SECRET, text, None, None, ["AWSCURRENT"])
            return
        backend.create_secret(KEYS_SECRET, text, None, None, None, None, None, [], force_overwrite=False)


def _name(execution: Execution) -> str:
    return f"{execution.variables.get('ModelId')}/{execution.variables.get('ModelTag')}"


def _summary(stack: Any) -> str:
    created = stack.creation_time.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return (
        f"<member><StackId>{escape(stack.stack_id)}</StackId><StackName>{escape(stack.name)}</StackName>"
        f"<CreationTime>{created}</CreationTime><StackStatus>{stack.status}</StackStatus></member>"
    )
