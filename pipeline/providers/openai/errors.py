"""Errors of OpenAI-compatible upstreams, translated into Forgeline's own.

Upstreams send OpenAI's object (`{"error": {"message", "type", "code"}}`), a bare string (EMD's router and containers),
the fields of that object at the top level (older vLLM) or FastAPI's `detail`; with an HTTP status, or in mid-stream.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.masking import clean_message

# `type` and `code` where they are words: those of OpenAI, vLLM and LiteLLM.
_STATUS_BY_CODE: Final = {
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

_ERROR_BY_STATUS: Final[dict[int, tuple[type[ForgelineError], str]]] = {
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


def error_from_chunk(error: Any, secret: str = "") -> ForgelineError:
    """Translate the `error` of a chunk: a ModelError, unless its code or type clearly means another error."""
    status = 500
    if isinstance(error, dict):
        for code in (error.get("code"), error.get("type")):
            known_status = code if isinstance(code, int) else _STATUS_BY_CODE.get(str(code))
            if known_status in _ERROR_BY_STATUS:
                status = known_status
                break
    return error_from_status(status, clean_message(find_message(error), secret))


def error_from_status(status: int, message: str, retry_after: float | None = None) -> ForgelineError:
    """Translate an HTTP status. `message` is the upstream's own, cleaned; `retry_after` in seconds."""
    error_class, description = _ERROR_BY_STATUS.get(status, (ModelError, f"failed ({status})"))
    if 300 <= status < 400:
        description, message = f"answered with a redirect ({status})", "is its base_url right?"
    if status in {401, 403}:
        message = ""  # it may show the credentials
    sentence = f"The model's server {description}" + (f": {message}" if message else ".")
    if error_class is RateLimited:
        return RateLimited(sentence, retry_after=retry_after)
    if error_class is Unavailable:
        return Unavailable(sentence, retry_after=retry_after, retryable=status == 503)
    return error_class(sentence, retryable=status >= 500)


def read_error_message(body: bytes, secret: str = "") -> str:
    """The upstream's message in the body of an error response; the start of the body itself if it is not JSON."""
    try:
        payload = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        payload = body.decode(errors="replace")
    return clean_message(find_message(payload), secret)


def find_message(payload: Any) -> str:
    """The message in a decoded error of any of the known shapes; "" if there is none."""
    if isinstance(payload, dict):
        for key in ("error", "message", "detail", "msg"):
            if payload.get(key):
                return find_message(payload[key])
        return ""
    if isinstance(payload, list):
        return "; ".join(filter(None, map(find_message, payload[:5])))
    return payload if isinstance(payload, str) else ""
