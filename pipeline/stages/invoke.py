"""invoke: the model is called. What follows has its first chunk in hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import InvalidRequest, Unavailable
from pipeline.messages import Call, Events, Inference, Part, Reply
from pipeline.schema import NoOptions, check
from pipeline.silence import SilenceTimer
from pipeline.stage import Context, Proceed, Provider


class Invoke:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        route = inference.route
        provider = self._context.providers[route.preset.provider]
        _check_taken(inference, provider)
        timeouts = route.preset.timeouts
        began = time.monotonic()
        tally = self._context.tally(route.model)
        tally.calls_open += 1
        try:
            async with asyncio.timeout(timeouts.first_token):
                reply = await provider.open(route, inference)
        except BaseException as error:
            tally.calls_open -= 1
            inference.failed_calls.append(time.monotonic() - began)
            if not isinstance(error, TimeoutError):
                raise
            # Not to be retried: it may be working still on what it was asked.
            raise Unavailable(f"{route.model} did not begin to answer within {timeouts.first_token:g} s.") from error
        watched = Reply(
            _watch(reply, route.model, timeouts.between_tokens),
            reply.aclose,
            tally.call_ended,
            id=reply.id,
            model=reply.model,
            streamed=reply.streamed,
        )
        try:
            return await proceed(replace(inference, called=Call(watched, began, time.monotonic())))
        except BaseException:
            await watched.aclose()
            raise


def _check_taken(inference: Inference, provider: Provider) -> None:
    """Raises InvalidRequest for what the provider would leave out without a word."""
    for name in inference.request.wants:
        if name not in getattr(provider, "takes", ()):
            kind, model = inference.route.preset.provider, inference.route.model
            raise InvalidRequest(f"{name}: {model} does not take this, for its provider ({kind}) can't pass it on.")


async def _watch(reply: Reply, model: str, seconds: float) -> AsyncGenerator[Sequence[Part], None]:
    """The reply as it comes. Raises Unavailable when it falls silent; the time that a reader takes doesn't count."""
    task = asyncio.current_task()
    silent = False

    def interrupt() -> None:
        nonlocal silent
        silent = True
        if task is not None:
            task.cancel()

    with SilenceTimer(seconds, interrupt) as timer:
        try:
            async for batch in reply:
                timer.pause()
                yield batch
                timer.heard()
        except asyncio.CancelledError as error:
            if silent and task is not None and task.uncancel() == 0:
                raise Unavailable(f"{model} fell silent for {seconds:g} s in the middle of its answer.") from error
            raise


def create(options: Mapping[str, Any], context: Context) -> Invoke:
    check(options, NoOptions)
    return Invoke(context)
