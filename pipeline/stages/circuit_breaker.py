"""circuit_breaker: a model that keeps failing is not asked for a while; then one call at a time tries it again."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

import structlog

from pipeline.errors import ForgelineError, ModelError, Unavailable
from pipeline.messages import Event, Events, Failure, Inference, Result, Route
from pipeline.presets import Breaking
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed

log = structlog.get_logger(__name__)

State = Literal["closed", "open", "half_open"]


class Breaker:
    """One model's. `closed` lets every call through, `open` none, `half_open` one at a time: the probe."""

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.told: State = "closed"  # what was last announced
        self._opened: float | None = None
        self._probe: object = None

    def state(self, policy: Breaking) -> State:
        if self._opened is None:
            return "closed"
        return "open" if time.monotonic() < self._opened + policy.seconds else "half_open"

    def enter(self, call: object, model: str, policy: Breaking) -> None:
        """Raises Unavailable where no call is to be made now."""
        state = self.state(policy)
        if state == "open" or (state == "half_open" and self._probe is not None):
            left = (self._opened or 0.0) + policy.seconds - time.monotonic()
            raise Unavailable(
                f"{model} failed {self.failures} times in a row, and is not asked for a while.",
                retry_after=max(1.0, math.ceil(left)),
            )
        if state == "half_open":
            self._probe = call

    def answered(self, call: object, policy: Breaking) -> None:
        """The call's first chunk is there: the model may be asked again, but one more failure is one too many."""
        self._opened = None
        self.failures = min(self.failures, policy.failures - 1)
        self.left(call)

    def succeeded(self) -> None:
        """An answer was whole."""
        self.failures = 0

    def failed(self, call: object, policy: Breaking) -> None:
        self.failures += 1
        if self.failures >= policy.failures:
            self._opened = time.monotonic()
        self.left(call)

    def left(self, call: object) -> None:
        """The call is the probe no longer."""
        if self._probe is call:
            self._probe = None


class CircuitBreaker:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        breaker: Breaker = self._context.state(inference.route.model).setdefault("breaker", Breaker())
        call = _Call(breaker, inference.route, self._context)
        call.enter()
        try:
            events = await proceed(inference)
        except (ModelError, Unavailable):
            call.failed()
            raise
        except ForgelineError:
            call.answered()  # it answers, if only to refuse
            raise
        finally:
            breaker.left(call)
        call.answered()
        return Events(_watch(events, call), events.aclose)


class _Call:
    """One call's word to the breaker. What that changes is announced."""

    def __init__(self, breaker: Breaker, route: Route, context: Context) -> None:
        self.policy = route.preset.breaker
        self._breaker = breaker
        self._model = route.model
        self._context = context

    def enter(self) -> None:
        self._breaker.enter(self, self._model, self.policy)
        self._announce()

    def answered(self) -> None:
        self._breaker.answered(self, self.policy)
        self._announce()

    def succeeded(self) -> None:
        self._breaker.succeeded()

    def failed(self) -> None:
        self._breaker.failed(self, self.policy)
        self._announce()

    def _announce(self) -> None:
        before, self._breaker.told = self._breaker.told, self._breaker.state(self.policy)
        if self._breaker.told != before:
            log.warning("circuit breaker", model=self._model, state=self._breaker.told, failures=self._breaker.failures)
            self._context.announce(self._model)


async def _watch(events: Events, call: _Call) -> AsyncGenerator[Sequence[Event], None]:
    """Passes the events on; a failure in the middle of an answer counts too."""
    async for batch in events:
        for outcome in batch[-1:]:  # nothing comes after it
            if isinstance(outcome, Result):
                call.succeeded()
            elif isinstance(outcome, Failure) and isinstance(outcome.error, ModelError | Unavailable):
                call.failed()
        yield batch


def create(options: Mapping[str, Any], context: Context) -> CircuitBreaker:
    check(options, NoOptions)
    return CircuitBreaker(context)
