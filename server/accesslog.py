"""What the access log says of an answer: models, outcomes, tokens and times; never text, frames or keys."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ForgelineError
from pipeline.messages import Failure, Result
from pipeline.streams import Stream


def describe_stream(stream: Stream) -> list[dict[str, Any]]:
    """Of each model of a stream, how its answer ended; of one that has not ended, what ends it, or that it runs."""
    return [{"model": model, **_describe(stream.outcomes.get(model), stream.stopped)} for model in stream.models]


def _describe(outcome: Result | Failure | None, stopped: ForgelineError | None) -> dict[str, Any]:
    if outcome is None:
        return {"code": "running" if stopped is None else stopped.code}
    if isinstance(outcome, Failure):
        return {"code": outcome.error.code}
    usage, metadata = outcome.envelope["response"]["usage"], outcome.envelope["metadata"]
    told = {"code": "ok", **usage}
    if "fallback_from" in metadata:
        told["answered_by"] = metadata["model"]
    return told | {name: metadata[name] for name in ("time_to_first_token_ms", "duration_ms", "overhead_ms")}
