"""`ask`: one prompt to one model or several, and their answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Any

import msgpack

from server.client.api import EVENTS, Api, Event, Request
from server.client.comparing import Labelled, Painter, SideBySide, Single
from server.client.errors import FAILED, OK, ClientError, Failed, Misused, Refused
from server.client.following import Patience, follow
from server.client.output import Output

LAST_WORDS = 2.0  # seconds to stop a stream that nobody waits for any more


async def ask(api: Api, output: Output, body: Mapping[str, Any], patience: Patience) -> int:
    """Asks, and shows the answers. FAILED where one of the models gave none."""
    request = _request(body)
    stream_id: str | None = None
    last = 0
    outcomes: dict[str, Event] = {}

    def resume() -> Request | None:
        if stream_id is None:  # it may have begun: asking again could cost twice
            return None
        return Request("GET", f"/api/streams/{stream_id}", headers={**EVENTS, "Last-Event-ID": str(last)})

    with _painter(output, body["models"]) as painter:
        try:
            async with aclosing(follow(api, request, resume, patience)) as events:
                async for event in events:
                    last = event["seq"]
                    if event["type"] == "start":
                        stream_id = event["stream_id"]
                    elif event["type"] in ("result", "error"):
                        outcomes[event["model"]] = event
                    painter.show(event)
        except Refused as error:
            if stream_id is None:
                raise
            raise Failed(f"The rest of the answer is lost; was the server restarted? It says: {error}") from error
        except BaseException as error:
            if stream_id is not None and not isinstance(error, ClientError):
                await _stop(api, stream_id)
            raise
    if not output.json:
        _tell(output, outcomes)
    return OK if all(outcome["type"] == "result" for outcome in outcomes.values()) else FAILED


def _request(body: Mapping[str, Any]) -> Request:
    # The address for several models, for one as well: it answers at once, so that there is a stream to resume or
    # to stop before the first token. MessagePack, so that pictures are sent as they are.
    try:
        content: bytes = msgpack.packb({**body, "resumable": True})
    except UnicodeEncodeError as error:
        raise Misused("The prompt is not valid UTF-8.") from error
    return Request(
        "POST", "/api/multi-inference", headers={**EVENTS, "Content-Type": "application/msgpack"}, body=content
    )


def _painter(output: Output, models: list[str]) -> Painter:
    if output.json or len(models) == 1:
        return Single(output)
    return SideBySide(output, models) if output.is_live else Labelled(output, models)


async def _stop(api: Api, stream_id: str) -> None:
    """A resumable stream would go on for a while without a reader."""
    with suppress(ClientError, TimeoutError):
        async with asyncio.timeout(LAST_WORDS):
            await api.ask(Request("DELETE", f"/api/streams/{stream_id}"))


def _tell(output: Output, outcomes: Mapping[str, Event]) -> None:
    """What is worth knowing of the answers, beside their text."""
    for model, outcome in outcomes.items():
        if outcome["type"] == "error":
            output.fail(Failed(f"{model}: {outcome['error']}"))
        else:
            output.remark(_measures(model, outcome))


def _measures(model: str, result: Event) -> str:
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
