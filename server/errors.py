"""Status and body of each error, for HTTP and WebSocket alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline import errors
from pipeline.envelope import RequestSummary
from pipeline.errors import ForgelineError
from server.inference.response_types import ErrorBody


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


class ClientDisconnected(ForgelineError):
    """The client has closed its connection: nobody gets this error."""

    code = "client_left"


DEFAULT_RETRY_AFTER = 1.0  # seconds, for errors to retry where nobody knows when
MAX_MESSAGE = 2000  # characters of an error: it may quote a client's value of any length

STATUS_CODES: Mapping[type[ForgelineError], int] = {
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
    ClientDisconnected: 499,
    errors.RateLimited: 429,
    errors.ModelError: 500,
    errors.Internal: 500,
    errors.Cancelled: 503,
    errors.ModelNotDeployed: 503,
    errors.Unavailable: 503,
}


def status_of(error: ForgelineError) -> int:
    """The status of the error's class, or of its nearest base class in the table."""
    return next((STATUS_CODES[cls] for cls in type(error).__mro__ if cls in STATUS_CODES), 500)


def headers_of(error: ForgelineError) -> dict[str, str]:
    retry_after = _retry_after(error)
    return {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


def _retry_after(error: ForgelineError) -> float | None:
    """Seconds until a retry makes sense: for every RateLimited, also where the provider did not say."""
    if error.retry_after is None and isinstance(error, errors.RateLimited):
        return DEFAULT_RETRY_AFTER
    return error.retry_after


def error_fields(error: ForgelineError) -> dict[str, Any]:
    """The fields of an error that a body and an `error` event share."""
    message = error.message if len(error.message) <= MAX_MESSAGE else error.message[:MAX_MESSAGE] + " …"
    fields: dict[str, Any] = {"error": message, "code": error.code}
    retry_after = _retry_after(error)
    if retry_after is not None:
        fields["retry_after"] = retry_after
    return fields


def error_body(error: ForgelineError, request: RequestSummary | None, request_id: str) -> ErrorBody:
    """The body of an answer that is an error. `request` is None where the request's body could not be read."""
    now = datetime.now(UTC).isoformat()
    return ErrorBody(time=now, request=request, request_id=request_id, **error_fields(error))
