"""How the last answers of each model ended, for the console's plots."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from pipeline.errors import Cancelled
from pipeline.messages import Failure, Result

MAX_RECENT = 30  # answers of each model that are kept


class RecentAnswers:
    """The last answers by model, since the server started."""

    def __init__(self) -> None:
        self._answers: dict[str, deque[dict[str, Any]]] = {}

    def record(self, outcome: Result | Failure) -> None:
        """Keep how an answer ended. One that was cancelled says nothing about its model."""
        if isinstance(outcome, Failure) and isinstance(outcome.error, Cancelled):
            return
        metadata: Mapping[str, Any] = outcome.envelope["metadata"] if isinstance(outcome, Result) else {}
        self._answers.setdefault(outcome.model, deque(maxlen=MAX_RECENT)).append(
            {
                "ok": isinstance(outcome, Result),
                "time_to_first_token_ms": metadata.get("time_to_first_token_ms"),
                "duration_ms": metadata.get("duration_ms"),
            }
        )

    def list(self, model: str) -> list[dict[str, Any]]:
        """The answers of a model, the oldest first."""
        return [*self._answers.get(model, ())]
