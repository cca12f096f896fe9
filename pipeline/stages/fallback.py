"""fallback: where a model fails before its first chunk, those that its preset names are asked, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from pipeline.errors import ForgelineError, InvalidRequest, UnknownModel
from pipeline.messages import Events, Inference
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed

log = structlog.get_logger(__name__)


class Fallback:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        try:
            return await proceed(inference)
        except (InvalidRequest, UnknownModel):
            raise  # the request is wrong, whoever answers
        except ForgelineError as error:
            events = await self._ask_others(inference, proceed, error)
            if events is None:
                raise  # that the others failed too is in the log; the client hears of the model that it asked
            return events

    async def _ask_others(self, inference: Inference, proceed: Proceed, first: ForgelineError) -> Events | None:
        preset = inference.models.get(inference.model)
        code = first.code  # no more of it: an error that is kept here would keep this request, in a circle
        for other in preset.fallback if preset is not None else ():
            log.info(
                "fallback",
                request_id=inference.request.request_id,
                model=inference.model,
                fallback=other,
                code=code,
            )
            self._context.tally(inference.model).fallbacks += 1
            try:
                return await proceed(replace(inference, model=other))
            except ForgelineError as error:
                code = error.code
        return None


def create(options: Mapping[str, Any], context: Context) -> Fallback:
    check(options, NoOptions)
    return Fallback(context)
