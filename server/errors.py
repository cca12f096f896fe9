"""Which status each error is, and the one body that tells it: for HTTP and WebSocket alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline import errors
from pipeline.errors import ForgelineError


class Unauthorized(ForgelineError):
    code = "unauthorized"


class Forbidden(ForgelineError):
    code = "forbidden"


class MethodNotAllowed(ForgelineError):
    code = "method_not_allowed"


class NotAcceptable(ForgelineError):
    code = "not_acceptable"


class RequestTimeout(ForgelineError):
    code = "request_timeout"


class TooLarge(ForgelineError):
    code = "too_large"


class UnsupportedMediaType(ForgelineError):
    code = "unsupported_media_type"


class ClientLeft(ForgelineError):
    """Nobody is there any more to be told anything."""

    code = "client_left"


RETRY_AFTER = 1.0  # seconds, where a client is to come back later and nobody knows when
MAX_SENTENCE = 2000  # characters of an error that are told: it may name what a client sent, however long that is

STATUS: Mapping[type[ForgelineError], int] = {
    errors.InvalidRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    RequestTimeout: 408,
    TooLarge: 413,
    errors.Conflict: 409,
    UnsupportedMediaType: 415,
    ClientLeft: 499,
    errors.RateLimited: 429,
    errors.ModelError: 500,
    errors.Internal: 500,
    errors.Cancelled: 503,
    errors.ModelNotDeployed: 503,
    errors.Unavailable: 503,
}


def status_of(error: ForgelineError) -> int:
    """By the error's class, or the nearest above it that the table names."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def headers_of(error: ForgelineError) -> dict[str, str]:
    retry_after = _retry_after(error)
    return {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


def _retry_after(error: ForgelineError) -> float | None:
    """A client that is to come back later is always told when, also where the provider did not say."""
    if error.retry_after is None and isinstance(error, errors.RateLimited):
        return RETRY_AFTER
    return error.retry_after


def describe(error: ForgelineError) -> dict[str, Any]:
    """What an answer and an `error` event both say of an error."""
    message = error.message if len(error.message) <= MAX_SENTENCE else error.message[:MAX_SENTENCE] + " …"
    told: dict[str, Any] = {"error": message, "code": error.code}
    retry_after = _retry_after(error)
    if retry_after is not None:
        told["retry_after"] = retry_after
    return told


def error_body(error: ForgelineError, request: Mapping[str, Any] | None, request_id: str) -> dict[str, Any]:
    """The body of every answer that is an error. `request` is None where the body could not be read."""
    now = datetime.now(UTC).isoformat()
    return {"time": now, "request": request, **describe(error), "request_id": request_id}
