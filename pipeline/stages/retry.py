"""retry: repeat a call that failed before its first chunk with a retryable error, after a delay."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import structlog

from pipeline.errors import ForgelineError
from pipeline.messages import EventStream, Inference
from pipeline.presets.models import RetryPolicy
from pipeline.presets.schema import NoOptions, validate
from pipeline.stage import Context, Proceed

log = structlog.get_logger(__name__)


class Retry:
    """Repeats failed upstream calls only. An error of the stages below, such as a full queue, passes at once."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        policy, model = inference.target.preset.retry, inference.target.model
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
                self._context.counters(model).retries += 1
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


def create(options: Mapping[str, Any], context: Context) -> Retry:
    validate(options, NoOptions)
    return Retry(context)
