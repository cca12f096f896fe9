"""Models that deploys have created: each a generated preset, from its first response on until its stack is destroyed.

Which models should exist follows from the stacks' records alone: `reconcile` runs at every start, and after every job.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import yaml

from infraforge_runner.infraforge.stack_records import StackRecord, StackStore
from infraforge_runner.jobs.directory import replace_file
from pipeline.errors import ForgelineError
from pipeline.messages import Inference, InferenceRequest, Message, ModelTarget, Parameters
from pipeline.presets.models import ModelPreset
from pipeline.runtime import Runtime

log = structlog.get_logger(__name__)

PROVIDER = "openai_compatible"
PROBE_PAUSE = 1.0  # seconds between two requests to a model that has not answered yet; doubled after each
MAX_PROBE_PAUSE = 30.0
MAX_NAME_CHARS = 60  # of a model's name, so that a number has room after it
_OUTPUT_REFERENCE = re.compile(r"\$\{outputs\.([A-Za-z0-9]+)\}")


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """A model that a stack serves. `preset` is the content of its file, which also identifies it."""

    name: str
    stack_name: str
    preset: bytes

    def candidate_names(self) -> Iterator[str]:
        """Two stacks may serve the same model: the second model is also named after its stack."""
        yield self.name
        name = f"{self.name}-{self.stack_name.lower()}"[:MAX_NAME_CHARS]
        yield name
        yield from (f"{name}-{number}" for number in itertools.count(2))


class DeployedModels:
    """Keeps `folder`, a folder of generated presets, in step with the stacks."""

    def __init__(self, folder: Path, stacks: StackStore, runtime: Runtime) -> None:
        self._folder = folder / runtime.plugins.model_presets.folder
        self._stacks = stacks
        self._runtime = runtime
        self._probes: dict[bytes, asyncio.Task[None]] = {}  # by the preset's content

    def reconcile(self) -> None:
        """Remove the presets that no stack serves any more, and begin to probe new models. Raises OSError."""
        desired = {
            model.preset: model for stack in self._stacks.list_all() if (model := _desired_model(stack)) is not None
        }
        existing = {path.read_bytes(): path for path in self._folder.glob("*.yaml")}
        for preset in existing.keys() - desired.keys():
            existing[preset].unlink()
            log.info("deployed_model_removed", model=existing[preset].stem)
        for preset in self._probes.keys() - desired.keys():
            self._probes.pop(preset).cancel()
        for preset in desired.keys() - existing.keys() - self._probes.keys():
            task = asyncio.create_task(self._probe(desired[preset]), name=f"probe {desired[preset].name}")
            self._probes[preset] = task
            task.add_done_callback(lambda _, preset=preset: self._probes.pop(preset, None))  # type: ignore[misc] # a default

    async def close(self) -> None:
        tasks = list(self._probes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, model: DesiredModel) -> None:
        """Send requests until one is answered, then write the preset: once it is on the feed, the model can be used."""
        preset = self._runtime.plugins.parse_model_preset(yaml.safe_load(model.preset))
        pause = PROBE_PAUSE
        while not (await self._is_answering(model.name, preset) and self._write_preset(model)):
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PROBE_PAUSE)

    async def _is_answering(self, name: str, preset: ModelPreset) -> bool:
        request = InferenceRequest((Message("user", ("Answer with one word.",)),), Parameters(max_tokens=1))
        inference = Inference(request, name, name, {name: preset}, request.messages, request.parameters)
        try:
            response = await self._runtime.providers[preset.provider].open(ModelTarget(name, preset), inference)
            await response.aclose()
        except ForgelineError as error:
            log.info("deployed_model_not_answering", model=name, error=error.message)
            return False
        return True

    def _write_preset(self, model: DesiredModel) -> bool:
        paths = (self._folder / f"{name}.yaml" for name in model.candidate_names())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = next(path for path in paths if not path.exists())
            replace_file(path, model.preset)
        except OSError as error:
            log.warning("deployed_model_write_failed", model=model.name, error=str(error))
            return False
        log.info("deployed_model_added", model=path.stem)
        return True


def _desired_model(stack: StackRecord) -> DesiredModel | None:
    """None for a stack that serves no model, was never deployed with success, or lacks an output that is needed."""
    serves = stack.serves
    if serves is None or stack.since is None:
        return None
    preset: dict[str, Any] = {
        "provider": PROVIDER,
        "model": serves.model,
        "base_url": _OUTPUT_REFERENCE.sub(lambda match: stack.outputs.get(match[1], match[0]), serves.base_url),
        "capabilities": list(serves.capabilities),
    }
    if serves.api_key_env is not None:
        preset["api_key_env"] = serves.api_key_env
    if "${" in preset["base_url"]:
        log.warning("stack_output_missing", stack=stack.stack_name, base_url=serves.base_url)
        return None
    name = serves.name or re.sub(r"[^a-z0-9._-]", "-", serves.model.lower()).lstrip("._-")[:40] or "model"
    heading = f"# Made by a deploy, for the stack {stack.stack_name} in {stack.region}.\n"
    return DesiredModel(name, stack.stack_name, (heading + yaml.safe_dump(preset, sort_keys=False)).encode())
