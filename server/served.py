"""The models that deploys have made: each a generated preset, there once it has answered, gone with its stack.

What should be there follows from the stacks' records alone, so it is put right at every start and after every job.
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

from infraforge_runner.directory import replace_file
from infraforge_runner.stacks import Stack, Stacks
from pipeline.errors import ForgelineError
from pipeline.messages import Inference, InferenceRequest, Message, Parameters, Route
from pipeline.presets import MODELS, ModelPreset
from pipeline.runtime import Runtime
from pipeline.schema import check

log = structlog.get_logger(__name__)

PROVIDER = "openai_compatible"
ASK_AGAIN = (1.0, 30.0)  # seconds between two requests to a model that has not answered yet: at first, and at most
MAX_NAME = 60  # characters of a model's name, so that a number has room after it
_OUTPUT = re.compile(r"\$\{outputs\.([A-Za-z0-9]+)\}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that a stack serves. `name` is what it would like to be called; `preset` its file's content, by which
    it is told from others."""

    name: str
    stack_name: str
    preset: bytes

    def names(self) -> Iterator[str]:
        """Two stacks may serve the same model: the second is called after its stack, too."""
        yield self.name
        longer = f"{self.name}-{self.stack_name.lower()}"[:MAX_NAME]
        yield longer
        yield from (f"{longer}-{number}" for number in itertools.count(2))


class ServedModels:
    """Keeps `folder`, a folder of generated presets, in step with the stacks."""

    def __init__(self, folder: Path, stacks: Stacks, runtime: Runtime) -> None:
        self._folder = folder / MODELS.folder
        self._stacks = stacks
        self._runtime = runtime
        self._asking: dict[bytes, asyncio.Task[None]] = {}  # by the preset's content

    def put_right(self) -> None:
        """Takes away what no stack serves any more, and begins to ask what is new. Raises OSError."""
        wanted = {one.preset: one for stack in self._stacks.all() if (one := _wanted(stack)) is not None}
        there = {path.read_bytes(): path for path in self._folder.glob("*.yaml")}
        for gone in there.keys() - wanted.keys():
            there[gone].unlink()
            log.info("a model went with its stack", model=there[gone].stem)
        for gone in self._asking.keys() - wanted.keys():
            self._asking.pop(gone).cancel()
        for new in wanted.keys() - there.keys() - self._asking.keys():
            task = asyncio.create_task(self._introduce(wanted[new]), name=f"ask {wanted[new].name}")
            self._asking[new] = task
            task.add_done_callback(lambda _, new=new: self._asking.pop(new, None))  # type: ignore[misc] # a default

    async def close(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _introduce(self, wanted: Wanted) -> None:
        """Asks until there is an answer, then makes the preset: who reads of it on the feed can use it."""
        preset = check(yaml.safe_load(wanted.preset), ModelPreset)
        pause, most = ASK_AGAIN
        while not (await self._answers(wanted.name, preset) and self._keep(wanted)):
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)

    async def _answers(self, name: str, preset: ModelPreset) -> bool:
        request = InferenceRequest((Message("user", ("Answer with one word.",)),), Parameters(max_tokens=1))
        inference = Inference(request, name, name, {name: preset}, request.messages, request.parameters)
        try:
            reply = await self._runtime.providers[preset.provider].open(Route(name, preset), inference)
            await reply.aclose()
        except ForgelineError as error:
            log.info("a deployed model does not answer yet", model=name, reason=error.message)
            return False
        return True

    def _keep(self, wanted: Wanted) -> bool:
        paths = (self._folder / f"{name}.yaml" for name in wanted.names())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = next(path for path in paths if not path.exists())
            replace_file(path, wanted.preset)
        except OSError as error:
            log.warning("a deployed model can't be made available", model=wanted.name, error=str(error))
            return False
        log.info("a model was made available", model=path.stem)
        return True


def _wanted(stack: Stack) -> Wanted | None:
    """None for a stack that serves nothing, or does not say where."""
    serves = stack.serves
    if serves is None or stack.since is None:
        return None
    preset: dict[str, Any] = {
        "provider": PROVIDER,
        "model": serves.model,
        "base_url": _OUTPUT.sub(lambda found: stack.outputs.get(found[1], found[0]), serves.base_url),
        "capabilities": list(serves.capabilities),
    }
    if serves.api_key_env is not None:
        preset["api_key_env"] = serves.api_key_env
    if "${" in preset["base_url"]:
        log.warning("a stack serves no model: an output is missing", stack=stack.stack_name, base_url=serves.base_url)
        return None
    name = serves.name or re.sub(r"[^a-z0-9._-]", "-", serves.model.lower()).lstrip("._-")[:40] or "model"
    heading = f"# Made by a deploy, for the stack {stack.stack_name} in {stack.region}.\n"
    return Wanted(name, stack.stack_name, (heading + yaml.safe_dump(preset, sort_keys=False)).encode())
