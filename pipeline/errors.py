"""Everything that can go wrong with an inference or a job, as a client is told it.

    ForgelineError
    ├── InvalidRequest          the request is wrong, whoever would answer it
    │   └── UnknownPreset
    ├── NotFound
    │   ├── UnknownModel
    │   ├── UnknownStream
    │   └── UnknownJob
    ├── Conflict                right in itself, but not beside what is there already
    │   ├── StackLocked         another job is at work on this stack
    │   ├── IdempotencyConflict this key was used for another request
    │   └── JobFinished         too late for that
    ├── RateLimited             come back later: our limits, or the provider's
    ├── ModelError              the provider failed
    ├── ModelNotDeployed        the model has to be deployed first
    ├── Unavailable             the provider can't be reached, or not now
    ├── Cancelled               somebody stopped it
    ├── SlowReader              the reader was too far behind and was cut off
    └── Internal                our fault; says nothing of its cause

Each has a stable `code`. Which HTTP status that is, is the transport's to say (`server/errors.py`).
"""

from __future__ import annotations

from typing import ClassVar, Self


class ForgelineError(Exception):
    """An error whose message is a sentence that the client can act on.

    `retry_after` is in seconds, where a time is known after which a retry makes sense. `retryable` says whether the
    same call may well succeed a moment later, and costs nothing twice.
    """

    code: ClassVar[str] = "internal"
    retryable: bool = False

    def __init__(self, message: str, *, retry_after: float | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable

    def again(self) -> Self:
        """The same error, to be raised once more: by its traceback one that is kept would keep all that it passed."""
        other = type(self).__new__(type(self), *self.args)
        other.__dict__.update(self.__dict__)
        return other


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
