"""The table of errors: each class's status and code, and the one body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import errors
from pipeline.errors import ForgelineError
from server import errors as transport
from server.errors import describe, error_body, headers_of, status_of

SENTENCE = "Something is wrong with it."
TABLE = {
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


def kinds(of: type[ForgelineError] = ForgelineError) -> Iterator[type[ForgelineError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def made(kind: type[ForgelineError], **fields: Any) -> ForgelineError:
    return kind() if kind is errors.Internal else kind(SENTENCE, **fields)


def test_every_error_has_the_status_of_the_contract() -> None:
    ours = [kind for kind in kinds() if kind.__module__ in (errors.__name__, transport.__name__)]
    found = {kind.code: status_of(made(kind)) for kind in ours}
    assert {code: found[code] for code in TABLE} == TABLE


def test_an_error_that_a_plugin_derives_has_its_parents_status() -> None:
    class Broken(errors.ModelError):
        pass

    class Strange(ForgelineError):
        pass

    assert (status_of(Broken(SENTENCE)), status_of(Strange(SENTENCE))) == (500, 500)


def test_a_body_has_one_shape() -> None:
    body = error_body(errors.UnknownModel(SENTENCE), {"text": "hi"}, "id-1")
    assert list(body) == ["time", "request", "error", "code", "request_id"]
    assert body["time"].endswith("+00:00")
    assert (body["request"], body["error"], body["code"]) == ({"text": "hi"}, SENTENCE, "unknown_model")


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "0"), (0.2, "1"), (7.0, "7"), (7.1, "8")])
def test_a_time_to_retry_is_told_in_whole_seconds_never_too_early(seconds: float, header: str) -> None:
    error = errors.RateLimited(SENTENCE, retry_after=seconds)
    assert headers_of(error) == {"Retry-After": header}
    assert describe(error)["retry_after"] == seconds


def test_our_limits_always_say_when_to_retry() -> None:
    assert headers_of(errors.RateLimited(SENTENCE)) == {"Retry-After": "1"}
    assert headers_of(errors.Unavailable(SENTENCE)) == {}
    assert "retry_after" not in describe(errors.Unavailable(SENTENCE))


def test_our_own_fault_tells_no_detail() -> None:
    assert "log" in errors.Internal().message
