"""Content negotiation, RFC 9110 12.5.1."""

from __future__ import annotations

import pytest

from server.errors import NotAcceptable
from server.inference.negotiation import media_type, negotiate

JSON, PACKED, SSE = "application/json", "application/msgpack", "text/event-stream"
OFFERED = (JSON, PACKED, SSE)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("  ", JSON),
        ("*/*", JSON),
        (SSE, SSE),
        ("TEXT/Event-Stream", SSE),
        ("text/*", SSE),
        ("application/*", JSON),
        (f"{JSON};q=0.5, {PACKED}", PACKED),
        (f"{JSON};q=0.5,{PACKED};q=0.6,{SSE};q=0.1", PACKED),
        (f"*/*, {JSON};q=0", PACKED),
        (f"application/*;q=0.2, {SSE};q=0.1", JSON),
        (f"{SSE}; charset=utf-8; q=0.9, */*;q=0.1", SSE),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (f"{PACKED},", PACKED),
    ],
)
def test_negotiation_selects_preferred_type(accept: str, chosen: str) -> None:
    assert negotiate(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["text/html", f"{JSON};q=0", "image/*", "json", "*/*;q=0", f"{JSON};q=x", ",,"])
def test_negotiation_without_match_lists_offered_types(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/msgpack"):
        negotiate(accept, OFFERED)


@pytest.mark.parametrize("header", [JSON, f"{JSON}; charset=utf-8", " Application/JSON ;x=1"])
def test_media_type_ignores_parameters(header: str) -> None:
    assert media_type(header) == JSON
