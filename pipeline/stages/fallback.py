"""fallback: when a model fails before its first chunk, try the fallback models of its preset in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from pipeline.errors import ForgelineError, InvalidRequest, UnknownModel
from pipeline.messages import EventStream, Inference
from pipeline.presets.schema import NoOptions, validate
from pipeline.stage import Context, Proceed

log = structlog.get_logger(__name__)


class Fallback:
    def __init__(self, context: Context) -> None:
        self._context = context

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
        for model in preset.fallback if preset is not None else ():
            log.info(
                "fallback_attempted",
                request_id=inference.request.request_id,
                model=inference.model,
                fallback=model,
                code=code,
            )
            self._context.counters(inference.model).fallbacks += 1
            try:
                return await proceed(replace(inference, model=model))
            except ForgelineError as error:
                code = error.code
        return None


def create(options: Mapping[str, Any], context: Context) -> Fallback:
    validate(options, NoOptions)
    return Fallback(context)
