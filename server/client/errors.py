"""Errors between a client and a server, each with the exit code that a script sees.

ClientError
├── UsageError              the command line or an input file is invalid
├── ApiError                the server answered with an error
├── OperationFailed         the operation ran and did not succeed
└── ServerUnreachable       no server answers
    └── ConnectionLost      the connection broke during a request
        └── ResponseTimeout
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK = 0
FAILED = 1
USAGE_ERROR = 2
UNREACHABLE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141


class ClientError(Exception):
    """Base of all. The message is a sentence that the person at the terminal can act on."""

    exit_code = FAILED
    code = "failed"

    def as_dict(self) -> dict[str, Any]:
        """Return the error as `--json` prints it."""
        return {"error": str(self), "code": self.code}


class UsageError(ClientError):
    exit_code = USAGE_ERROR
    code = "usage"


class OperationFailed(ClientError):
    pass


class ApiError(ClientError):
    """An error response. `status` is the HTTP status, `retry_after` is in seconds, `body` is the whole body."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> None:
        # In OpenAI's format `error` is an object, in ours a sentence.
        details = body["error"] if isinstance(body.get("error"), Mapping) else body
        super().__init__(str(details.get("message") or details.get("error") or f"The server answered {status}."))
        self.status = status
        self.code = str(details.get("code") or details.get("type") or status)
        self.retry_after = retry_after
        self.body = body

    def as_dict(self) -> dict[str, Any]:
        return dict(self.body)


class ServerUnreachable(ClientError):
    exit_code = UNREACHABLE
    code = "unreachable"


class ConnectionLost(ServerUnreachable):
    code = "connection_lost"


class ResponseTimeout(ConnectionLost):
    code = "timed_out"
