"""fallback: when a model fails before its first chunk, try the fallback models of its preset in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog
from msgspec import Struct

from pipeline.errors import ForgelineError, InvalidRequest, UnknownModel
from pipeline.messages import EventStream, Inference, ModelTarget
from pipeline.presets.schema import NoOptions
from pipeline.stage import Context, Measurement, Proceed

log = structlog.get_logger(__name__)


@dataclass
class FallbackCounter:
    """Calls of a model that were made to another model instead, since the server started."""

    fallbacks: int = 0


class Fallback:
    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        """`fallback`: names of models."""

        fallback: tuple[str, ...] = ()

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._context = context

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        fallbacks = self._context.state(target.model, FallbackCounter).fallbacks
        yield Measurement("fallbacks", "Calls made to another model instead.", fallbacks, type="counter")

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        try:
            return await proceed(inference)
        except (InvalidRequest, UnknownModel):
            raise  # no other model could answer this request
        except ForgelineError as error:
            events = await self._try_fallbacks(inference, proceed, error)
            if events is None:
                raise  # the client gets the error of the model that it requested; the log has the others
            return events

    async def _try_fallbacks(
        self, inference: Inference, proceed: Proceed, primary_error: ForgelineError
    ) -> EventStream | None:
        preset = inference.models.get(inference.model)
        code = (
            primary_error.code
        )  # only the code: a reference to the error would form a cycle that keeps the request in memory
        for model in preset.options_of(self.ModelOptions).fallback if preset is not None else ():
            log.info(
                "fallback_attempted",
                request_id=inference.request.request_id,
                model=inference.model,
                fallback=model,
                code=code,
            )
            self._context.state(inference.model, FallbackCounter).fallbacks += 1
            try:
                return await proceed(replace(inference, model=model))
            except ForgelineError as error:
                code = error.code
        return None
