"""emd: models that aws-samples' Easy Model Deployer put on SageMaker or ECS.

Deployments are not looked up yet, so a model of this provider counts as not deployed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ModelNotDeployed
from pipeline.messages import Inference, Reply, Route
from pipeline.presets import ModelPreset
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context


class Emd:
    async def open(self, route: Route, inference: Inference) -> Reply:
        raise ModelNotDeployed(how_to_deploy(route.preset))

    async def availability(self, preset: ModelPreset) -> Availability:
        return Availability("not_deployed", how_to_deploy(preset))


def how_to_deploy(preset: ModelPreset) -> str:
    """The sentence for a model that is not up, with the exact line that deploys it (easy-model-deployer's CLI)."""
    line = f"emd deploy --model-id {preset.model} --model-tag {preset.tag}"
    if preset.deploy is not None:
        line += (
            f" --instance-type {preset.deploy.instance} --engine-type {preset.deploy.engine}"
            f" --service-type {preset.deploy.service}"
        )
    return f"EMD model not deployed. Please deploy using: {line}"


def create(options: Mapping[str, Any], context: Context) -> Emd:
    check(options, NoOptions)
    return Emd()
