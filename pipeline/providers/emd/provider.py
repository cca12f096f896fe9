"""emd: models that Easy Model Deployer has put on SageMaker or ECS, found by discovery and called where they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

from pipeline.aws.clients import AwsClients
from pipeline.aws.errors import NO_CREDENTIALS
from pipeline.errors import ForgelineError, ModelNotDeployed, Unavailable, before_upstream_call
from pipeline.masking import mask_identifiers
from pipeline.messages import Inference, ModelResponse, ModelTarget, ResponsePart
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import NoOptions
from pipeline.providers.emd.deployments import EmdModelOptions, model_key
from pipeline.providers.emd.discovery import RegionDeployments, RegionState
from pipeline.providers.emd.invocation import DeploymentGone, RouterClient, invoke_endpoint
from pipeline.providers.openai.request import SUPPORTED_FEATURES
from pipeline.stage import Availability, Context, Deployment, DeploySettings


class EmdProvider:
    """Discovers each region from the first request for a model in it; before that it makes no call to AWS."""

    Options = NoOptions
    ModelOptions = EmdModelOptions
    supported_features = SUPPORTED_FEATURES

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._context = context
        self._clients = AwsClients(tracing=context.tracing)
        self._router = RouterClient(self._clients, context.tracing)
        self._regions: dict[str | None, RegionDeployments] = {}

    async def close(self) -> None:
        """Stop discovery, and close every connection, including those of open responses."""
        regions, self._regions = [*self._regions.values()], {}
        await asyncio.gather(*(region.close() for region in regions))
        await self._router.close()
        await self._clients.close()

    async def availability(self, preset: ModelPreset) -> Availability:
        """What is known now, without waiting for AWS."""
        deployment = self._region(preset).get(model_key(preset))
        if deployment.status == "deployed":
            return Availability("available" if _transport(deployment) else "unavailable", deployment.reason)
        return Availability(deployment.status, _unavailable_reason(preset, deployment))

    def deploy_settings(self, preset: ModelPreset) -> DeploySettings:
        options, command = preset.options_of(EmdModelOptions), deploy_command(preset)
        if options.deploy is None:
            return DeploySettings(options.tag, options.region, None, None, None, command)
        deploy = options.deploy
        return DeploySettings(options.tag, options.region, deploy.instance, deploy.engine, deploy.service, command)

    async def deployment(self, preset: ModelPreset) -> Deployment:
        """The model's deployment; waits only for the first discovery of its region."""
        region = self._region(preset)
        with suppress(Unavailable):  # the deployment's reason says it
            await region.wait_until_known()
        return region.get(model_key(preset))

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Call the model, and return when the first chunk has arrived.

        Raises ModelNotDeployed, with the command that deploys the model, if the model is not deployed; otherwise the
        errors of `pipeline.aws.errors` and `openai.errors`.
        """
        preset = target.preset
        region = self._region(preset)
        with before_upstream_call():
            deployment = await _find_deployment(region, preset)
        try:
            response = await self._call(target, inference, deployment)
        except DeploymentGone:
            await region.refresh()
            raise _not_deployed_error(preset, region.get(model_key(preset))) from None
        except ForgelineError as error:
            _mask_error(error)
            raise
        return ModelResponse(
            _mask_errors(response),
            response.aclose,
            id=response.id,
            model=mask_identifiers(response.model),
            streamed=response.streamed,
        )

    async def _call(self, target: ModelTarget, inference: Inference, deployment: Deployment) -> ModelResponse:
        match _transport(deployment):
            case "sagemaker" if deployment.endpoint:
                with before_upstream_call():
                    client = await self._clients.get("sagemaker-runtime", _region_name(target.preset))
                return await invoke_endpoint(client, deployment.endpoint, target, inference)
            case "router" if deployment.base_url:
                return await self._router.complete(deployment.base_url, target.preset, inference)
        raise Unavailable(f"{target.model} can't be asked: {deployment.reason}.", before_call=True)

    def _region(self, preset: ModelPreset) -> RegionDeployments:
        """The running discovery of the preset's region."""
        name = _region_name(preset)
        region = self._regions.get(name)
        if region is None or region.is_stopped:
            region = RegionDeployments(
                self._clients, name, partial(self._has_presets, name), partial(self._notify_changes, name)
            )
            self._regions[name] = region
        region.touch()
        return region

    def _has_presets(self, region: str | None) -> bool:
        return bool(self._presets(region))

    def _presets(self, region: str | None) -> list[tuple[str, ModelPreset]]:
        """The presets in force whose models are in this region."""
        models = self._context.models()
        return [
            (name, preset)
            for name, preset in models.items()
            if preset.provider == "emd" and _region_name(preset) == region
        ]

    def _notify_changes(self, name: str | None, before: RegionState) -> None:
        """Announce the models of a region whose deployment a refresh has changed."""
        region = self._regions.get(name)
        if region is None:
            return  # the provider is being closed
        for model, preset in self._presets(name):
            if region.get(model_key(preset)) != before.get(model_key(preset)):
                self._context.notify_model_changed(model)


def _region_name(preset: ModelPreset) -> str | None:
    return preset.options_of(EmdModelOptions).region


def deploy_command(preset: ModelPreset) -> str:
    """The exact command line that deploys this model with easy-model-deployer."""
    options = preset.options_of(EmdModelOptions)
    line = f"emd deploy --model-id {preset.model} --model-tag {options.tag}"
    if options.deploy is not None:
        line += (
            f" --instance-type {options.deploy.instance} --engine-type {options.deploy.engine}"
            f" --service-type {options.deploy.service}"
        )
    return line


def not_deployed_message(preset: ModelPreset) -> str:
    """The error message for a model that is not deployed."""
    return f"EMD model not deployed. Please deploy using: {deploy_command(preset)}"


def _unavailable_reason(preset: ModelPreset, deployment: Deployment) -> str | None:
    """Why a model is not available. The reason stands behind a `#`, so that the whole line can be pasted."""
    if deployment.status == "unknown":
        return deployment.reason
    return not_deployed_message(preset) + (f"  # {deployment.reason}" if deployment.reason else "")


def _not_deployed_error(preset: ModelPreset, deployment: Deployment) -> ForgelineError:
    if deployment.status == "unknown":
        return Unavailable(f"Whether {model_key(preset)} is deployed is not known: {deployment.reason}.")
    if deployment.status == "deployed":
        missing = deployment.endpoint if _transport(deployment) == "sagemaker" else "the router's entry"
        return ModelNotDeployed(
            f"{not_deployed_message(preset)}  # its stack {deployment.stack} stands, but {missing} is not there"
        )
    return ModelNotDeployed(_unavailable_reason(preset, deployment) or not_deployed_message(preset))


async def _find_deployment(region: RegionDeployments, preset: ModelPreset) -> Deployment:
    """The model's deployment. Raises ModelNotDeployed, and Unavailable if it is not known."""
    try:
        await region.wait_until_known()
    except Unavailable as error:
        if error.message != NO_CREDENTIALS:
            raise
        # A user without an AWS account needs to know first what this model requires.
        raise ModelNotDeployed(f"{not_deployed_message(preset)}  # {NO_CREDENTIALS}") from error
    deployment = region.get(model_key(preset))
    if deployment.status != "deployed":
        raise _not_deployed_error(preset, deployment)
    return deployment


def _transport(deployment: Deployment) -> Literal["sagemaker", "router"] | None:
    """How a deployed model is called. One on SageMaker has the router's address too, which would be a detour."""
    if deployment.service == "sagemaker_async":
        return None
    return "sagemaker" if deployment.endpoint else "router" if deployment.base_url else None


async def _mask_errors(response: ModelResponse) -> AsyncGenerator[Sequence[ResponsePart], None]:
    try:
        async for batch in response:
            yield batch
    except ForgelineError as error:
        _mask_error(error)
        raise


def _mask_error(error: ForgelineError) -> None:
    """The messages of a container or of the router may name the account, or show a signed address."""
    error.message = mask_identifiers(error.message)
    error.args = (error.message,)
