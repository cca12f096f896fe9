"""circuit_breaker: stop calling a model after consecutive failures, for a while; then probe it with single calls."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import structlog
from msgspec import Struct

from pipeline.errors import ForgelineError, ModelError, Unavailable
from pipeline.messages import Event, EventStream, Failure, Inference, ModelTarget, Result
from pipeline.presets.models import Seconds
from pipeline.presets.schema import NoOptions, PositiveInt
from pipeline.stage import Context, Measurement, Proceed

log = structlog.get_logger(__name__)

BreakerState = Literal["closed", "open", "half_open"]


class BreakerPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Consecutive failures that open the circuit breaker, and how many seconds it stays open."""

    failures: PositiveInt = 5
    seconds: Seconds = 10.0


class Breaker:
    """The circuit breaker of one model: `closed` admits every call, `open` none, `half_open` one probe at a time."""

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self.announced_state: BreakerState = "closed"
        self._opened_at: float | None = None
        self._probe: object = None

    def state(self, policy: BreakerPolicy) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        return "open" if time.monotonic() < self._opened_at + policy.seconds else "half_open"

    def admit(self, call: object, model: str, policy: BreakerPolicy) -> None:
        """Admit a call, as the probe if the breaker is half open. Raises Unavailable for a call that may not run.

        A call that is admitted a second time stays the probe.
        """
        state = self.state(policy)
        if state == "open" or (state == "half_open" and self._probe not in (None, call)):
            seconds_left = (self._opened_at or 0.0) + policy.seconds - time.monotonic()
            raise Unavailable(
                f"{model} failed {self.consecutive_failures} times in a row, and is not asked for a while.",
                retry_after=max(1.0, math.ceil(seconds_left)),
            )
        if state == "half_open":
            self._probe = call

    def record_first_chunk(self, call: object, policy: BreakerPolicy) -> None:
        """Close the breaker, but one failure short of opening again: the answer may still break off."""
        self._opened_at = None
        self.consecutive_failures = min(self.consecutive_failures, policy.failures - 1)
        self.release_probe(call)

    def record_success(self) -> None:
        """Reset the count after a complete answer."""
        self.consecutive_failures = 0

    def record_failure(self, call: object, policy: BreakerPolicy) -> None:
        self.consecutive_failures += 1
        if self.consecutive_failures >= policy.failures:
            self._opened_at = time.monotonic()
        self.release_probe(call)

    def release_probe(self, call: object) -> None:
        """End the probe, if this call is it."""
        if self._probe is call:
            self._probe = None


class CircuitBreaker:
    """Counts upstream calls only: an error of the stages below, such as a full queue, counts neither way."""

    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        breaker: BreakerPolicy = BreakerPolicy()

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._context = context

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        state = self._state(target)
        for name in sorted(get_args(BreakerState)):
            yield Measurement(
                "breaker_state", "1 for the state that a model's breaker is in.", name == state, {"state": name}
            )

    def describe(self, target: ModelTarget) -> Mapping[str, BreakerState]:
        return {"breaker": self._state(target)}

    def _state(self, target: ModelTarget) -> BreakerState:
        policy = target.preset.options_of(self.ModelOptions).breaker
        return self._context.state(target.model, Breaker).state(policy)

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        breaker = self._context.state(inference.target.model, Breaker)
        call = _TrackedCall(breaker, inference.target, self._context)
        call.admit()
        failed_calls = inference.failed_calls
        # Admitted again after the queue of `limit`: the breaker may have opened, or closed, while the call waited.
        guards = (*inference.call_guards, call.admit)
        try:
            events = await proceed(replace(inference, call_guards=guards))
        except ForgelineError as error:
            if inference.failed_calls == failed_calls:
                raise  # the upstream was not called
            if isinstance(error, ModelError | Unavailable):
                call.record_failure()
            else:
                call.record_first_chunk()  # the model responds, even if it rejects this request
            raise
        finally:
            breaker.release_probe(call)
        call.record_first_chunk()
        return EventStream(_record_outcome(events, call), events.aclose)


class _TrackedCall:
    """One call as the breaker sees it. Announces the changes of the breaker's state."""

    def __init__(self, breaker: Breaker, target: ModelTarget, context: Context) -> None:
        self.policy = target.preset.options_of(CircuitBreaker.ModelOptions).breaker
        self._breaker = breaker
        self._model = target.model
        self._context = context

    def admit(self) -> None:
        self._breaker.admit(self, self._model, self.policy)
        self._announce_change()

    def record_first_chunk(self) -> None:
        self._breaker.record_first_chunk(self, self.policy)
        self._announce_change()

    def record_success(self) -> None:
        self._breaker.record_success()

    def record_failure(self) -> None:
        self._breaker.record_failure(self, self.policy)
        self._announce_change()

    def _announce_change(self) -> None:
        before, self._breaker.announced_state = self._breaker.announced_state, self._breaker.state(self.policy)
        if self._breaker.announced_state != before:
            log.warning(
                "circuit_breaker_state_changed",
                model=self._model,
                state=self._breaker.announced_state,
                failures=self._breaker.consecutive_failures,
            )
            self._context.notify_model_changed(self._model)


async def _record_outcome(events: EventStream, call: _TrackedCall) -> AsyncGenerator[Sequence[Event], None]:
    """Forward the events, and record the result or the failure at their end."""
    async for batch in events:
        for outcome in batch[-1:]:  # the outcome is always the last event
            if isinstance(outcome, Result):
                call.record_success()
            elif isinstance(outcome, Failure) and isinstance(outcome.error, ModelError | Unavailable):
                call.record_failure()
        yield batch
