"""What OpenAI-compatible upstreams say when they refuse or fail, turned into our tree of errors.

Their errors come as OpenAI's object (`{"error": {"message", "type", "code"}}`), as a bare string (EMD's router
and containers), at the top level (older vLLM) or as FastAPI's `detail`; with an HTTP status, or in mid-stream.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable

MAX_MESSAGE: Final = 500  # characters of an upstream's message that are passed on

# What `type` and `code` say, where they are words: OpenAI's, vLLM's and LiteLLM's.
_STATUS_OF: Final = {
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "RateLimitError": 429,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "overloaded_error": 503,
    "service_unavailable": 503,
}

_MEANINGS: Final[dict[int, tuple[type[ForgelineError], str]]] = {
    400: (InvalidRequest, "refused the request"),
    401: (Unavailable, "refused our credentials"),
    403: (Unavailable, "refused our credentials"),
    404: (Unavailable, "knows no such model or address"),
    408: (Unavailable, "timed out"),
    413: (InvalidRequest, "refused the request as too large"),
    422: (InvalidRequest, "refused the request"),
    429: (RateLimited, "is too busy"),
    503: (Unavailable, "is not available now"),
    504: (Unavailable, "timed out"),
}


def error_in_stream(error: Any, secret: str = "") -> ForgelineError:
    """The error that a chunk holds: ModelError, unless it says clearly that it is another."""
    status = 500
    if isinstance(error, dict):
        for said in (error.get("code"), error.get("type")):
            known = said if isinstance(said, int) else _STATUS_OF.get(str(said))
            if known in _MEANINGS:
                status = known
                break
    return error_for_status(status, clean(message_of(error), secret))


def error_for_status(status: int, message: str, retry_after: float | None = None) -> ForgelineError:
    """The error for an HTTP status. `message` is the upstream's own, cleaned; `retry_after` in seconds."""
    kind, what = _MEANINGS.get(status, (ModelError, f"failed ({status})"))
    if 300 <= status < 400:
        what, message = f"answered with a redirect ({status})", "is its base_url right?"
    if status in {401, 403}:
        message = ""  # it may show the credentials
    sentence = f"The model's server {what}" + (f": {message}" if message else ".")
    if kind is RateLimited:
        return RateLimited(sentence, retry_after=retry_after)
    if kind is Unavailable:
        return Unavailable(sentence, retry_after=retry_after, retryable=status == 503)
    return kind(sentence, retryable=status >= 500)


def message_in_body(body: bytes, secret: str = "") -> str:
    """The upstream's own words in the body of an error; the start of the body itself where it is not JSON."""
    try:
        said = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        said = body.decode(errors="replace")
    return clean(message_of(said), secret)


def message_of(said: Any) -> str:
    """The sentence in whatever shape it came."""
    if isinstance(said, dict):
        for key in ("error", "message", "detail", "msg"):
            if said.get(key):
                return message_of(said[key])
        return ""
    if isinstance(said, list):
        return "; ".join(filter(None, map(message_of, said[:5])))
    return said if isinstance(said, str) else ""


def clean(message: str, secret: str = "") -> str:
    """On one line, at most `MAX_MESSAGE` characters, and without the secret, should the upstream repeat it."""
    if secret:
        message = message.replace(secret, "[key]")
    return " ".join(message.split())[:MAX_MESSAGE]


def read_retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or an HTTP date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
