"""What holds for every error, and for every stream, whatever the test is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgpack

from tests.running_server import HttpResponse

LEAKS = ("Traceback", "tornado", "msgspec", "aiohttp", 'File "', "Error:")


def check_error(answer: HttpResponse, status: int, code: str, *words: str) -> dict[str, Any]:
    """The one shape of every error. `words` have to be in its sentence. Returns its body."""
    assert answer.status == status, answer.content
    packed = answer.headers["Content-Type"] == "application/msgpack"
    body: dict[str, Any] = msgpack.unpackb(answer.content) if packed else answer.json
    assert packed or answer.headers["Content-Type"] == "application/json"
    assert body.keys() - {"retry_after"} == {"time", "request", "error", "code", "request_id"}
    assert datetime.fromisoformat(body["time"]).tzinfo is not None
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["code"] == code
    assert all(word in body["error"] for word in words), body["error"]
    assert len(body["error"].split()) > 2
    assert not [leak for leak in LEAKS if leak in body["error"]]
    assert "Server" not in answer.headers
    assert ("Retry-After" in answer.headers) == ("retry_after" in body)
    assert status != 429 or int(answer.headers["Retry-After"]) >= body["retry_after"]
    return body


def check_stream(events: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """A whole stream: `start`, no hole in `seq`, chunks that make the result's text, `complete`.

    Returns each model's result or error.
    """
    stored_events = [event for event in events if event["type"] != "heartbeat"]
    assert [event["seq"] for event in stored_events] == list(range(len(stored_events)))
    assert [event["type"] for event in stored_events].count("start") == 1
    assert [event["type"] for event in stored_events].count("complete") == 1
    assert stored_events[0]["type"] == "start"
    assert stored_events[-1]["type"] == "complete"
    outcomes = {}
    for model in stored_events[0]["models"]:
        of_model = [event for event in stored_events if event.get("model") == model]
        assert [event["type"] for event in of_model[:-1]] == ["chunk"] * (len(of_model) - 1)
        outcomes[model] = of_model[-1]
        if outcomes[model]["type"] == "result":
            assert text_of(outcomes[model]) == "".join(event["delta"] for event in of_model[:-1])
        else:
            assert outcomes[model]["type"] == "error"
    return outcomes


def text_of(envelope: Mapping[str, Any]) -> str:
    text: str = envelope["response"]["content"][0]["text"]
    return text
