"""How the last answers of each model went: what the console plots."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from pipeline.errors import Cancelled
from pipeline.messages import Failure, Result

KEPT = 30  # answers of each model
State = dict[str, Any]  # what a model keeps over reloads: `context.state(model)`


def remember(state: State, outcome: Result | Failure) -> None:
    if isinstance(outcome, Failure) and isinstance(outcome.error, Cancelled):
        return  # that somebody stopped it says nothing about the model
    metadata: Mapping[str, Any] = outcome.envelope["metadata"] if isinstance(outcome, Result) else {}
    state.setdefault("recent", deque(maxlen=KEPT)).append(
        {
            "ok": isinstance(outcome, Result),
            "time_to_first_token_ms": metadata.get("time_to_first_token_ms"),
            "duration_ms": metadata.get("duration_ms"),
        }
    )


def recall(state: State) -> list[dict[str, Any]]:
    """`{ok, time_to_first_token_ms, duration_ms}` of each, oldest first; the times are None where there was none."""
    return list(state.get("recent", ()))
