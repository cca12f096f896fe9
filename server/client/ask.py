"""`forgeline ask`: send one prompt to one model or several and show the answers as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Any

import msgpack

from server.client.api import ACCEPT_SSE, ApiClient, EventFields, Request
from server.client.errors import FAILED, OK, ApiError, ClientError, OperationFailed, UsageError
from server.client.output import Output
from server.client.reconnect import ReconnectPolicy, follow_events
from server.client.side_by_side import LabelledView, PlainView, SideBySideView, StreamView

STOP_TIMEOUT = 2.0  # seconds to stop a stream at the server when the command is interrupted


async def run_ask(api: ApiClient, output: Output, body: Mapping[str, Any], reconnect: ReconnectPolicy) -> int:
    """Run the command. Returns FAILED if a model answered with an error."""
    request = _create_request(body)
    stream_id: str | None = None
    last_seq = 0
    outcomes: dict[str, EventFields] = {}

    def resume() -> Request | None:
        if stream_id is None:  # the server may have started it: a second request could cost twice
            return None
        return Request("GET", f"/api/streams/{stream_id}", headers={**ACCEPT_SSE, "Last-Event-ID": str(last_seq)})

    with _create_view(output, body["models"]) as view:
        try:
            async with aclosing(follow_events(api, request, resume, reconnect)) as events:
                async for event in events:
                    last_seq = event["seq"]
                    if event["type"] == "start":
                        stream_id = event["stream_id"]
                    elif event["type"] in ("result", "error"):
                        outcomes[event["model"]] = event
                    view.show(event)
        except ApiError as error:
            if stream_id is None:
                raise
            message = f"The rest of the answer is lost; was the server restarted? It says: {error}"
            raise OperationFailed(message) from error
        except BaseException as error:
            if stream_id is not None and not isinstance(error, ClientError):
                await _stop_stream(api, stream_id)
            raise
    if not output.json:
        _print_outcomes(output, outcomes)
    return OK if all(outcome["type"] == "result" for outcome in outcomes.values()) else FAILED


def _create_request(body: Mapping[str, Any]) -> Request:
    # One model is asked through the address for several too: that responds at once, so that there is a stream to
    # resume or to stop before the first token. MessagePack carries pictures without base64.
    try:
        content: bytes = msgpack.packb({**body, "resumable": True})
    except UnicodeEncodeError as error:
        raise UsageError("The prompt is not valid UTF-8.") from error
    headers = {**ACCEPT_SSE, "Content-Type": "application/msgpack"}
    return Request("POST", "/api/multi-inference", headers=headers, body=content)


def _create_view(output: Output, models: list[str]) -> StreamView:
    if output.json or len(models) == 1:
        return PlainView(output)
    return SideBySideView(output, models) if output.is_live else LabelledView(output, models)


async def _stop_stream(api: ApiClient, stream_id: str) -> None:
    """Stop a resumable stream: without a reader it would continue for a while."""
    with suppress(ClientError, TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT):
            await api.send(Request("DELETE", f"/api/streams/{stream_id}"))


def _print_outcomes(output: Output, outcomes: Mapping[str, EventFields]) -> None:
    """Print each model's error, or its token counts and times."""
    for model, outcome in outcomes.items():
        if outcome["type"] == "error":
            output.print_error(OperationFailed(f"{model}: {outcome['error']}"))
        else:
            output.print_dimmed(_format_metrics(model, outcome))


def _format_metrics(model: str, result: EventFields) -> str:
    response, metadata = result["response"], result["metadata"]
    parts = [model]
    if (usage := response["usage"]) and usage.get("output_tokens") is not None:
        parts.append(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out")
    if metadata["time_to_first_token_ms"] is not None:
        parts.append(f"first after {metadata['time_to_first_token_ms'] / 1000:.2f} s")
    parts.append(f"{metadata['duration_ms'] / 1000:.2f} s")
    if response["stop_reason"] == "max_tokens":
        parts.append("cut at its limit of tokens: --max-tokens allows more")
    return " · ".join(parts)
