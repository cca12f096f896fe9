"""Content negotiation (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from server.errors import NotAcceptable


@lru_cache(maxsize=256)  # clients send the same few headers again and again
def negotiate(accept: str, offered: tuple[str, ...]) -> str:
    """The offered type that `accept` prefers; among equals the first. Raises NotAcceptable."""
    if not accept.strip():
        return offered[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    best = max(offered, key=lambda type_: _quality(type_, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"This address answers with {', '.join(offered)}; the Accept header takes none of them.")
    return best


def media_type(header: str) -> str:
    """A header's media type, without its parameters."""
    return header.partition(";")[0].strip().lower()


def _parse(part: str) -> tuple[str, float]:
    type_, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return type_, float(quality)
    except ValueError:
        return type_, 0.0


def _quality(type_: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality that the most specific matching range gives to this type."""
    for pattern in (type_, type_.partition("/")[0] + "/*", "*/*"):
        for range_, quality in ranges:
            if range_ == pattern:
                return quality
    return 0.0
