"""The table of errors: each class's status and code, and the one body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pipeline import errors
from pipeline.errors import ForgelineError
from pipeline.messages import InferenceRequest, Message
from server import errors as transport
from server.errors import error_body, error_fields, headers_of, status_of

MESSAGE = "Something is wrong with it."
DOCUMENTED_STATUS = {
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_stream": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "model_error": 500,
    "internal": 500,
    "model_not_deployed": 503,
    "unavailable": 503,
}
"""The statuses and codes of contract.md 2."""


def error_classes(of: type[ForgelineError] = ForgelineError) -> Iterator[type[ForgelineError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from error_classes(kind)


def make_error(kind: type[ForgelineError], **fields: Any) -> ForgelineError:
    return kind() if kind is errors.Internal else kind(MESSAGE, **fields)


def test_error_classes_have_documented_status() -> None:
    ours = [kind for kind in error_classes() if kind.__module__ in (errors.__name__, transport.__name__)]
    statuses = {kind.code: status_of(make_error(kind)) for kind in ours}
    assert {code: statuses[code] for code in DOCUMENTED_STATUS} == DOCUMENTED_STATUS


def test_error_subclass_of_plugin_has_status_of_base() -> None:
    class Broken(errors.ModelError):
        pass

    class Strange(ForgelineError):
        pass

    assert (status_of(Broken(MESSAGE)), status_of(Strange(MESSAGE))) == (500, 500)


def test_error_body_has_fixed_fields() -> None:
    request = InferenceRequest((Message("user", ("hi",)),)).summary
    body = msgspec.to_builtins(error_body(errors.UnknownModel(MESSAGE), request, "id-1"))
    assert list(body) == ["time", "request", "error", "code", "request_id"]
    assert body["time"].endswith("+00:00")
    assert (body["request"], body["error"], body["code"]) == (request, MESSAGE, "unknown_model")


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "0"), (0.2, "1"), (7.0, "7"), (7.1, "8")])
def test_error_retry_after_header_is_rounded_up(seconds: float, header: str) -> None:
    error = errors.RateLimited(MESSAGE, retry_after=seconds)
    assert headers_of(error) == {"Retry-After": header}
    assert error_fields(error)["retry_after"] == seconds


def test_error_rate_limited_always_has_retry_after() -> None:
    assert headers_of(errors.RateLimited(MESSAGE)) == {"Retry-After": "1"}
    assert headers_of(errors.Unavailable(MESSAGE)) == {}
    assert "retry_after" not in error_fields(errors.Unavailable(MESSAGE))


def test_error_internal_has_no_details() -> None:
    assert "log" in errors.Internal().message
