"""emd: models that Easy Model Deployer put on SageMaker or ECS: they are found, asked, and answer as they stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from pipeline.errors import ForgelineError, ModelNotDeployed, Unavailable
from pipeline.messages import Inference, Part, Reply, Route
from pipeline.presets import ModelPreset
from pipeline.providers.aws import NO_CREDENTIALS, Clients, masked
from pipeline.providers.chat_request import TAKES, encode_request
from pipeline.providers.emd_discovery import Region
from pipeline.providers.emd_router import Router
from pipeline.providers.emd_sagemaker import Gone, invoke
from pipeline.providers.emd_stacks import Deployment
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context


def create(options: Mapping[str, Any], context: Context) -> Emd:
    """The provider. It takes no options: all it needs stands in the model's preset and in AWS's own settings."""
    check(options, NoOptions)
    return Emd(context)


class Emd:
    """Looks at each region from the first time that somebody asks for a model in it; AWS is not asked before."""

    takes = TAKES

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clients = Clients(tracing=context.tracing)
        self._router = Router(self._clients, context.tracing)
        self._regions: dict[str | None, Region] = {}

    async def close(self) -> None:
        """Ends the looking, and closes every connection, those of open replies as well."""
        regions, self._regions = [*self._regions.values()], {}
        await asyncio.gather(*(region.close() for region in regions))
        await self._router.close()
        await self._clients.close()

    async def availability(self, preset: ModelPreset) -> Availability:
        """What is known; AWS is not waited for."""
        found = self._region(preset).of(_name(preset))
        if found.status == "deployed":
            way = _way_in(found)
            return Availability("available" if way else "unavailable", found.reason)
        return Availability(found.status, _explained(preset, found))

    async def deployment(self, preset: ModelPreset) -> Deployment:
        """How things stand with the model; waits only for the first look at its region."""
        region = self._region(preset)
        with suppress(Unavailable):  # the deployment's reason says it
            await region.known()
        return region.of(_name(preset))

    async def open(self, route: Route, inference: Inference) -> Reply:
        """Asks, and returns with the first chunk in hand. Raises ModelNotDeployed with the line that deploys it where
        the model is not up, and what `aws_errors` and `chat_errors` make of a failure.
        """
        preset = route.preset
        region = self._region(preset)
        try:
            await region.known()
        except Unavailable as error:
            if error.message != NO_CREDENTIALS:
                raise
            # Who has no account at all needs to hear first what the model wants of them.
            raise ModelNotDeployed(f"{how_to_deploy(preset)}  # {NO_CREDENTIALS}") from error
        found = region.of(_name(preset))
        if found.status != "deployed":
            raise _not_deployed(preset, found)
        try:
            reply = await self._ask(route, inference, found)
        except Gone:
            await region.look_again()
            raise _not_deployed(preset, region.of(_name(preset))) from None
        except ForgelineError as error:
            _hide_secrets(error)
            raise
        return Reply(_masked(reply), reply.aclose, id=reply.id, model=masked(reply.model), streamed=reply.streamed)

    async def _ask(self, route: Route, inference: Inference, found: Deployment) -> Reply:
        preset, stops = route.preset, inference.parameters.stop
        stream = "stream" in preset.capabilities
        match _way_in(found):
            case "sagemaker" if found.endpoint:
                body = encode_request(None, inference, stream=stream)
                client = await self._clients.get("sagemaker-runtime", preset.region)
                return await invoke(client, found.endpoint, body, stops, stream=stream, what=route.model)
            case "router" if found.base_url:
                body, connect = encode_request(_name(preset), inference, stream=stream), preset.timeouts.connect
                return await self._router.ask(
                    *(found.base_url, _name(preset), preset.region), body=body, connect=connect, stops=stops
                )
        raise Unavailable(f"{route.model} can't be asked: {found.reason}.")

    def _region(self, preset: ModelPreset) -> Region:
        known = self._regions.get(preset.region)
        if known is None or known.is_over:
            key = preset.region
            known = Region(self._clients, key, partial(self._is_named, key), partial(self._announce, key))
            self._regions[key] = known
        known.asked()
        return known

    def _is_named(self, region: str | None) -> bool:
        return bool(self._presets(region))

    def _presets(self, region: str | None) -> list[tuple[str, ModelPreset]]:
        """The presets in force whose models are in this region."""
        models = self._context.models()
        return [(name, one) for name, one in models.items() if one.provider == "emd" and one.region == region]

    def _announce(self, region: str | None, before: Callable[[str], Deployment]) -> None:
        """Tells those who watch which models stand otherwise than before."""
        now = self._regions.get(region)
        if now is None:
            return  # it is being closed
        for name, preset in self._presets(region):
            if now.of(_name(preset)) != before(_name(preset)):
                self._context.announce(name)


def deploy_command(preset: ModelPreset) -> str:
    """The exact line that deploys this model (easy-model-deployer's CLI)."""
    line = f"emd deploy --model-id {preset.model} --model-tag {preset.tag}"
    if preset.deploy is not None:
        line += (
            f" --instance-type {preset.deploy.instance} --engine-type {preset.deploy.engine}"
            f" --service-type {preset.deploy.service}"
        )
    return line


def how_to_deploy(preset: ModelPreset) -> str:
    """The sentence for a model that is not up."""
    return f"EMD model not deployed. Please deploy using: {deploy_command(preset)}"


def _explained(preset: ModelPreset, found: Deployment) -> str | None:
    """Why a model is not up. What goes with the line stands behind a `#`, so that all of it can be pasted."""
    if found.status == "unknown":
        return found.reason
    return how_to_deploy(preset) + (f"  # {found.reason}" if found.reason else "")


def _not_deployed(preset: ModelPreset, found: Deployment) -> ForgelineError:
    if found.status == "unknown":
        return Unavailable(f"Whether {_name(preset)} is deployed is not known: {found.reason}.")
    if found.status == "deployed":
        there = found.endpoint if _way_in(found) == "sagemaker" else "the router's entry"
        return ModelNotDeployed(f"{how_to_deploy(preset)}  # its stack {found.stack} stands, but {there} is not there")
    return ModelNotDeployed(_explained(preset, found) or how_to_deploy(preset))


def _way_in(found: Deployment) -> str | None:
    """By what a deployed model is asked. What is on SageMaker has the router's address as well, which is a detour."""
    if found.service == "sagemaker_async":
        return None
    return "sagemaker" if found.endpoint else "router" if found.base_url else None


def _name(preset: ModelPreset) -> str:
    return f"{preset.model}/{preset.tag}"


async def _masked(reply: Reply) -> AsyncGenerator[Sequence[Part], None]:
    try:
        async for batch in reply:
            yield batch
    except ForgelineError as error:
        _hide_secrets(error)
        raise


def _hide_secrets(error: ForgelineError) -> None:
    """A container's or the router's own words may name the account, or show a signed address."""
    error.message = masked(error.message)
    error.args = (error.message,)
