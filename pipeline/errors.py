"""The errors of inferences and jobs that clients see.

    ForgelineError
    ├── InvalidRequest          the request itself is wrong
    │   └── UnknownPreset
    ├── NotFound
    │   ├── UnknownModel
    │   ├── UnknownStream
    │   └── UnknownJob
    ├── Conflict                the request conflicts with the current state
    │   ├── StackLocked         another job is running on this stack
    │   ├── IdempotencyConflict the key was used for another request
    │   └── JobFinished         the job has already finished
    ├── RateLimited             retry later: our limit, or the provider's
    ├── ModelError              the provider failed
    ├── ModelNotDeployed        the model has to be deployed first
    ├── Unavailable             the provider can't be reached
    ├── Cancelled               the client or the server stopped it
    ├── SlowReader              the reader was too far behind and was cut off
    └── Internal                a bug; the message does not say which

Each has a stable `code`. `server/errors.py` maps it to an HTTP status.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar, Self


class ForgelineError(Exception):
    """An error whose message is a sentence that the client can act on.

    `retry_after` is in seconds; None: unknown. `retryable`: whether the same call may succeed a moment later and is not
    charged twice. `before_call`: whether it was raised before the upstream call began, so that no call has failed.
    """

    code: ClassVar[str] = "internal"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        retryable: bool | None = None,
        before_call: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.before_call = before_call
        if retryable is not None:
            self.retryable = retryable

    def without_traceback(self) -> Self:
        """Return a copy without traceback and cause: those of a stored error would keep its request in memory."""
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        return copy


class InvalidRequest(ForgelineError):
    code = "invalid_request"


class UnknownPreset(InvalidRequest):
    code = "unknown_preset"


class NotFound(ForgelineError):
    code = "not_found"


class UnknownModel(NotFound):
    code = "unknown_model"


class UnknownStream(NotFound):
    code = "unknown_stream"


class UnknownJob(NotFound):
    code = "unknown_job"


class Conflict(ForgelineError):
    code = "conflict"


class StackLocked(Conflict):
    code = "stack_locked"


class IdempotencyConflict(Conflict):
    code = "idempotency_conflict"


class JobFinished(Conflict):
    code = "job_finished"


class RateLimited(ForgelineError):
    code = "rate_limited"
    retryable = True


class ModelError(ForgelineError):
    code = "model_error"
    retryable = True


class ModelNotDeployed(ForgelineError):
    code = "model_not_deployed"


class Unavailable(ForgelineError):
    code = "unavailable"


class Cancelled(ForgelineError):
    code = "cancelled"


class SlowReader(ForgelineError):
    code = "slow_reader"


class Internal(ForgelineError):
    code = "internal"

    def __init__(self) -> None:
        super().__init__("Forgeline failed to answer this request; its log says why, under this request_id.")


@contextmanager
def before_upstream_call() -> Iterator[None]:
    """Set `before_call` of the errors that are raised inside. For what a provider does before it sends anything."""
    try:
        yield
    except ForgelineError as error:
        error.before_call = True
        raise


def parse_retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or an HTTP date (RFC 9110, 10.2.3); None if neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
