"""invoke: call the model, and proceed once its first chunk has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import ForgelineError, InvalidRequest, Unavailable
from pipeline.events.idle_timer import IdleTimer
from pipeline.messages import EventStream, Inference, ModelResponse, ModelTarget, ResponsePart, UpstreamCall
from pipeline.presets.schema import NoOptions
from pipeline.stage import Context, Measurement, Proceed, Provider


@dataclass
class OpenCalls:
    """The calls of a model that are running."""

    count: int = 0

    def end_call(self) -> None:
        self.count -= 1


class Invoke:
    Options = NoOptions

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._context = context

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        count = self._context.state(target.model, OpenCalls).count
        yield Measurement("upstream_connections", "Calls to a model under way.", count)

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        target = inference.target
        provider = self._context.providers[target.preset.provider]
        _check_features(inference, provider)
        for guard in inference.call_guards:
            guard()
        timeouts = target.preset.timeouts
        started_at = time.monotonic()
        open_calls = self._context.state(target.model, OpenCalls)
        open_calls.count += 1
        try:
            async with asyncio.timeout(timeouts.first_token):
                response = await provider.open(target, inference)
        except BaseException as error:
            open_calls.end_call()
            if not (isinstance(error, ForgelineError) and error.before_call):
                inference.failed_call_seconds.append(time.monotonic() - started_at)
            if not isinstance(error, TimeoutError):
                raise
            # Not retryable: the upstream may still be working on this request.
            raise Unavailable(f"{target.model} did not begin to answer within {timeouts.first_token:g} s.") from error
        guarded = ModelResponse(
            _with_idle_timeout(response, target.model, timeouts.between_tokens),
            response.aclose,
            open_calls.end_call,
            id=response.id,
            model=response.model,
            streamed=response.streamed,
        )
        try:
            return await proceed(replace(inference, started_call=UpstreamCall(guarded, started_at, time.monotonic())))
        except BaseException:
            await guarded.aclose()
            raise


def _check_features(inference: Inference, provider: Provider) -> None:
    """Raise InvalidRequest for a feature of the request that the provider would silently ignore."""
    for feature in inference.request.required_features:
        if feature not in getattr(provider, "supported_features", ()):
            kind, model = inference.target.preset.provider, inference.target.model
            raise InvalidRequest(f"{feature}: {model} does not take this, for its provider ({kind}) can't pass it on.")


async def _with_idle_timeout(
    response: ModelResponse, model: str, seconds: float
) -> AsyncGenerator[Sequence[ResponsePart], None]:
    """Forward the batches. Raises Unavailable after `seconds` without one; the time of a slow reader doesn't count.

    The timer cancels the task that iterates, and this generator takes the cancellation back. It is paused during each
    `yield`, so that it never cancels other code of that task (PEP 789). `asyncio.timeout` around each `anext` would do
    the same for 25 more function calls per token (docs/PERFORMANCE.md).
    """
    task = asyncio.current_task()
    is_idle = False

    def cancel_task() -> None:
        nonlocal is_idle
        is_idle = True
        if task is not None:
            task.cancel()

    with IdleTimer(seconds, cancel_task) as timer:
        try:
            async for batch in response:
                timer.pause()
                yield batch
                timer.reset()
        except asyncio.CancelledError as error:
            if is_idle and task is not None and task.uncancel() == 0:
                raise Unavailable(f"{model} fell silent for {seconds:g} s in the middle of its answer.") from error
            raise
