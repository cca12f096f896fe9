"""retry: repeat a call that failed before its first chunk with a retryable error, after a delay."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from msgspec import Struct

from pipeline.errors import ForgelineError
from pipeline.messages import EventStream, Inference, ModelTarget
from pipeline.presets.models import Seconds
from pipeline.presets.schema import NoOptions, PositiveInt
from pipeline.stage import Context, Measurement, Proceed

log = structlog.get_logger(__name__)


class RetryPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Attempts in all before the first token; seconds for attempts and delays together; the longest first delay."""

    attempts: PositiveInt = 3
    deadline: Seconds = 10.0
    backoff: Seconds = 0.25


@dataclass
class RetryCounter:
    """Calls of a model that were made again, since the server started."""

    retries: int = 0


class Retry:
    """Repeats failed upstream calls only. An error of the stages below, such as a full queue, passes at once."""

    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        retry: RetryPolicy = RetryPolicy()

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._context = context

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        retries = self._context.state(target.model, RetryCounter).retries
        yield Measurement("retries", "Calls made again.", retries, type="counter")

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        policy, model = inference.target.preset.options_of(self.ModelOptions).retry, inference.target.model
        started_at = time.monotonic()
        attempt = 1
        upstream_error: ForgelineError | None = None
        try:
            while True:
                failed_calls = inference.failed_calls
                try:
                    return await proceed(inference)
                except ForgelineError as error:
                    if inference.failed_calls == failed_calls:  # this attempt did not reach the upstream
                        if upstream_error is None:
                            raise
                        raise upstream_error from upstream_error.__cause__
                    delay = retry_delay(error, attempt, policy)
                    if delay is None or time.monotonic() - started_at + delay > policy.deadline:
                        raise
                    log.info(
                        "retry_scheduled",
                        request_id=inference.request.request_id,
                        model=model,
                        code=error.code,
                        delay=delay,
                    )
                    upstream_error = error
                self._context.state(model, RetryCounter).retries += 1
                attempt += 1
                await asyncio.sleep(delay)
        finally:
            del upstream_error  # its traceback holds this frame: the cycle would keep the request in memory


def retry_delay(error: ForgelineError, attempt: int, policy: RetryPolicy) -> float | None:
    """Seconds until the next attempt; None if there must be none.

    The upstream's own Retry-After wins. Otherwise the delay is a random part of an exponentially growing interval, so
    that calls that failed together are not repeated together (AWS Architecture Blog: exponential backoff and jitter).
    """
    if not error.retryable or attempt >= policy.attempts:
        return None
    if error.retry_after is not None:
        return error.retry_after
    return random.uniform(0, policy.backoff * 2 ** (attempt - 1))  # noqa: S311 - not for cryptography
