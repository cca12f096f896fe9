"""retry: a call that failed before its first chunk, in a way that may pass, is made again a moment later."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import structlog

from pipeline.errors import ForgelineError
from pipeline.messages import Events, Inference
from pipeline.presets import Retrying
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed

log = structlog.get_logger(__name__)


class Retry:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        policy, model = inference.route.preset.retry, inference.route.model
        began = time.monotonic()
        attempt = 1
        while True:
            try:
                return await proceed(inference)
            except ForgelineError as error:
                pause = pause_before_next(error, attempt, policy)
                if pause is None or time.monotonic() - began + pause > policy.deadline:
                    raise
                log.info("retry", request_id=inference.request.request_id, model=model, code=error.code, pause=pause)
            self._context.tally(model).retries += 1
            attempt += 1
            await asyncio.sleep(pause)


def pause_before_next(error: ForgelineError, attempt: int, policy: Retrying) -> float | None:
    """Seconds to wait before the call is made again; None where it should not be.

    What the upstream says of its own time holds. Otherwise a random part of an exponentially growing span, so that
    those who failed together don't come back together (AWS Architecture Blog: exponential backoff and jitter).
    """
    if not error.retryable or attempt >= policy.attempts:
        return None
    if error.retry_after is not None:
        return error.retry_after
    return random.uniform(0, policy.backoff * 2 ** (attempt - 1))  # noqa: S311 - spreads load, hides nothing


def create(options: Mapping[str, Any], context: Context) -> Retry:
    check(options, NoOptions)
    return Retry(context)
