"""What can go wrong between a client and a server, each with the exit code that a script sees.

ClientError
├── Misused         what was typed can't be done
├── Refused         the server answered, with an error
├── Failed          the work was done, and did not succeed
└── Unreachable     no server answers
    └── Lost        the connection broke while a server was asked
        └── TimedOut
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK = 0
FAILED = 1
MISUSED = 2
UNREACHABLE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141


class ClientError(Exception):
    """Its message is a sentence that the person at the terminal can act on."""

    exit_code = FAILED
    code = "failed"

    def described(self) -> dict[str, Any]:
        """As --json tells it."""
        return {"error": str(self), "code": self.code}


class Misused(ClientError):
    exit_code = MISUSED
    code = "usage"


class Failed(ClientError):
    pass


class Refused(ClientError):
    """An answer that is an error. `status` is HTTP's; `retry_after` is in seconds; `body` is the whole answer."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> None:
        # OpenAI's shape has an object where ours has a sentence.
        told = body["error"] if isinstance(body.get("error"), Mapping) else body
        super().__init__(str(told.get("message") or told.get("error") or f"The server answered {status}."))
        self.status = status
        self.code = str(told.get("code") or told.get("type") or status)
        self.retry_after = retry_after
        self.body = body

    def described(self) -> dict[str, Any]:
        return dict(self.body)


class Unreachable(ClientError):
    exit_code = UNREACHABLE
    code = "unreachable"


class Lost(Unreachable):
    code = "connection_lost"


class TimedOut(Lost):
    code = "timed_out"
