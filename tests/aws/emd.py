"""The resources of EMD in an account: stacks, SageMaker endpoints, pipeline executions and API keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from tests.aws import moto_backend
from tests.aws.codepipeline import STAGES, CodePipeline, Execution
from tests.aws.moto_backend import ACCOUNT

ENV_STACK = "EMD-Env"
KEYS_SECRET = "EMD-APIKey-Secrets"  # noqa: S105 - its name
EXECUTION_STATUSES = {"InProgress", "Failed", "Stopping", "Stopped", "Cancelled", "Superseded", "Succeeded"}
COMPLETE_STATUSES = {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
EMPTY_TEMPLATE = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {}}
CONSOLE_URL = "https://console.aws.amazon.com/secretsmanager/secret?name=EMD-APIKey-Secrets&region="


@dataclass(frozen=True)
class DeployedModel:
    """One model that is deployed or being deployed."""

    model_id: str
    tag: str
    service: str
    status: str
    stack: str
    endpoint: str
    instance: str
    api_key: str | None

    @property
    def name(self) -> str:
        return f"{self.model_id}/{self.tag}"

    @property
    def is_serving(self) -> bool:
        return self.status in COMPLETE_STATUSES


def stack_name(model_id: str, tag: str = "dev") -> str:
    """EMD's name for the stack: without the tag if it is `dev`."""
    name = model_id if tag == "dev" else f"{model_id}-{tag}"
    name = re.sub(r"[^-a-zA-Z0-9]", "", re.sub(r"[_.]", "-", name))
    return f"EMD-Model-{name.lower()}"


class EmdAccount:
    """EMD's part of the account. All methods use moto's state: call them through `MotoBackend.run`."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.router_url = ""
        self.pipeline = CodePipeline()
        self.deployments: dict[str, DeployedModel] = {}

    @property
    def executions(self) -> list[Execution]:
        return self.pipeline.executions

    @property
    def keys(self) -> dict[str, str]:
        return {name: model.api_key for name, model in self.deployments.items() if model.api_key}

    def bootstrap(self) -> None:
        if not self.pipeline.exists:
            self.pipeline.exists = True
            self._create_stack(ENV_STACK, EMPTY_TEMPLATE, {})
            self._write_keys_secret()

    def deploy(self, deployment: DeployedModel, stage: str) -> None:
        self.bootstrap()
        self._remove(deployment.name)
        self.deployments[deployment.name] = deployment
        if deployment.status in EXECUTION_STATUSES:
            self._add_execution(deployment, deployment.status, stage)
            return
        succeeded = deployment.status in COMPLETE_STATUSES or deployment.status.startswith("DELETE")
        execution_status = "InProgress" if deployment.status.endswith("_IN_PROGRESS") else "Failed"
        self._add_execution(deployment, "Succeeded" if succeeded else execution_status, "Deploy")
        has_endpoint = succeeded or deployment.status == "CREATE_IN_PROGRESS"
        has_endpoint = has_endpoint and deployment.service.startswith("sagemaker")
        template = self._template(deployment, has_endpoint=has_endpoint)
        if not succeeded:
            del template["Outputs"]
        stack = self._create_stack(deployment.stack, template, self._parameters(deployment))
        if has_endpoint:
            self._create_endpoint(deployment)
        self._set_status(deployment, stack)
        self._write_keys_secret()

    def undeploy(self, name: str) -> None:
        self._remove(name)
        self._write_keys_secret()

    def add_unrelated(self, stacks: int, executions: int) -> None:
        self.bootstrap()
        for number in range(stacks):
            self._create_stack(f"Other-{time.time_ns()}-{number}", EMPTY_TEMPLATE, {})
        others = [Execution({"ModelId": "other"}, "Succeeded", "Deploy") for _ in range(executions)]
        self.executions[:0] = others

    def is_in_service(self, endpoint: str, region: str) -> bool:
        endpoints = moto_backend.get_moto_backend("sagemaker", region).endpoints.values()
        return any(item.endpoint_name == endpoint and item.endpoint_status == "InService" for item in endpoints)

    def find_by_endpoint(self, endpoint: str) -> DeployedModel | None:
        """The model at this endpoint."""
        return next((model for model in self.deployments.values() if model.endpoint == endpoint), None)

    def list_stacks(self, form: Mapping[str, str], region: str, page_size: int) -> bytes:
        """A page of ListStacks."""
        statuses = {value for name, value in form.items() if name.startswith("StackStatusFilter.member.")}
        stacks = list(
            reversed(moto_backend.get_moto_backend("cloudformation", region).list_stacks(list(statuses) or None))
        )
        start = int(form.get("NextToken", "page-0").removeprefix("page-"))
        rows = "".join(_stack_summary(stack) for stack in stacks[start : start + page_size])
        next_token = f"<NextToken>page-{start + page_size}</NextToken>" if start + page_size < len(stacks) else ""
        return (
            '<ListStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><ListStacksResult>'
            f"<StackSummaries>{rows}</StackSummaries>{next_token}</ListStacksResult>"
            "<ResponseMetadata><RequestId>b9b4b068-3a41-11e5-94eb-example</RequestId></ResponseMetadata>"
            "</ListStacksResponse>"
        ).encode()

    def _remove(self, name: str) -> None:
        """Remove the stack, and the execution that has not ended. Other executions stay in the history."""
        removed = self.deployments.pop(name, None)
        if removed is None:
            return
        self.executions[:] = [
            execution for execution in self.executions if execution.has_ended or _model_name(execution) != name
        ]
        backend = moto_backend.get_moto_backend("cloudformation", self.region)
        if any(stack.name == removed.stack for stack in backend.stacks.values()):
            backend.delete_stack(removed.stack)
        sagemaker = moto_backend.get_moto_backend("sagemaker", self.region)
        if sagemaker.endpoints.pop(removed.endpoint, None) is not None:
            sagemaker.delete_endpoint_config(f"{removed.stack}-config")
            sagemaker.delete_model(f"{removed.stack}-model")

    def _add_execution(self, deployment: DeployedModel, status: str, stage: str) -> None:
        assert stage in STAGES
        variables = {
            "ModelStackName": deployment.stack,
            "ModelId": deployment.model_id,
            "ModelTag": deployment.tag,
            "ServiceType": deployment.service,
            "InstanceType": deployment.instance,
            "EngineType": "vllm",
            "ExtraParams": "{}",
            "FrameworkType": "fastapi",
            "CreateTime": str(time.time()),
            "Region": self.region,
        }
        self.executions.insert(0, Execution(variables, status, stage))

    def _parameters(self, deployment: DeployedModel) -> dict[str, str]:
        has_default_name = deployment.endpoint == f"{deployment.stack}-endpoint"
        endpoint = {"SageMakerEndpointName": "Auto-generate" if has_default_name else deployment.endpoint}
        return {
            **(endpoint if deployment.service.startswith("sagemaker") else {}),
            "ECRImageURI": f"{ACCOUNT}.dkr.ecr.{self.region}.amazonaws.com/emd-{deployment.model_id.lower()}:latest",
            "InstanceType": f"ml.{deployment.instance}"
            if deployment.service.startswith("sagemaker")
            else deployment.instance,
            "ModelId": deployment.model_id,
            "ModelTag": deployment.tag,
            "FrameWorkType": "fastapi",
            "ServiceType": deployment.service,
            "EngineType": "vllm",
            "Region": self.region,
            "DNSName": self.router_url.removeprefix("http://"),
            "APIKey": "****",  # NoEcho, which moto ignores
        }

    def _template(self, deployment: DeployedModel, *, has_endpoint: bool) -> dict[str, Any]:
        names = self._parameters(deployment)
        outputs: dict[str, Any] = {"Model": {"Value": deployment.name}}
        if deployment.service != "sagemaker_async":
            outputs["BaseURL"] = {"Value": self.router_url}
        if deployment.service == "ecs":
            outputs["ECSServiceConnect"] = {"Value": f"http://{deployment.stack.lower()}:8080"}
        if deployment.api_key:
            outputs["ModelAPIKey"] = {"Value": CONSOLE_URL + self.region}
        if has_endpoint:
            outputs["SageMakerEndpointName"] = {"Value": deployment.endpoint}
        parameters = {name: {"Type": "String"} for name in names}
        return {**EMPTY_TEMPLATE, "Parameters": parameters, "Outputs": outputs}

    def _create_stack(self, name: str, template: Mapping[str, Any], parameters: dict[str, str]) -> Any:
        backend = moto_backend.get_moto_backend("cloudformation", self.region)
        return backend.create_stack(name=name, template=json.dumps(template), parameters=parameters, tags={})

    def _create_endpoint(self, deployment: DeployedModel) -> None:
        """Create it without the stack's template: moto would not use the template's names for SageMaker's resources."""
        backend = moto_backend.get_moto_backend("sagemaker", self.region)
        model, config = f"{deployment.stack}-model", f"{deployment.stack}-config"
        container = {"Image": self._parameters(deployment)["ECRImageURI"]}
        role = f"arn:aws:iam::{ACCOUNT}:role/emd"
        backend.create_model(model, role, container, {"SecurityGroupIds": [], "Subnets": []}, [], [])
        variant: dict[str, Any] = {"ModelName": model, "VariantName": "AllTraffic", "InitialInstanceCount": 1}
        variant |= {"InitialVariantWeight": 1, "InstanceType": "ml.g4dn.2xlarge"}  # moto does not know g5
        backend.create_endpoint_config(config, [variant], {}, {}, [], "")
        backend.create_endpoint(deployment.endpoint, config, [])
        status = {"CREATE_IN_PROGRESS": "Creating", "DELETE_IN_PROGRESS": "Deleting"}
        backend.endpoints[deployment.endpoint].endpoint_status = status.get(deployment.status, "InService")

    def _set_status(self, deployment: DeployedModel, stack: Any) -> None:
        stack.status = deployment.status
        if "FAILED" in deployment.status or "ROLLBACK" in deployment.status:
            stack._add_stack_event(
                "CREATE_FAILED", resource_status_reason="The primary container did not pass the ping"
            )

    def _write_keys_secret(self) -> None:
        backend = moto_backend.get_moto_backend("secretsmanager", self.region)
        text = json.dumps(self.keys)
        if any(secret.name == KEYS_SECRET for secret in backend.secrets.values()):
            backend.put_secret_value(KEYS_SECRET, text, None, None, ["AWSCURRENT"])
            return
        backend.create_secret(KEYS_SECRET, text, None, None, None, None, None, [], force_overwrite=False)


def _model_name(execution: Execution) -> str:
    return f"{execution.variables.get('ModelId')}/{execution.variables.get('ModelTag')}"


def _stack_summary(stack: Any) -> str:
    created = stack.creation_time.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return (
        f"<member><StackId>{escape(stack.stack_id)}</StackId><StackName>{escape(stack.name)}</StackName>"
        f"<CreationTime>{created}</CreationTime><StackStatus>{stack.status}</StackStatus></member>"
    )
