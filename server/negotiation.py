"""Content negotiation: which of the types that an address offers a client wants (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from server.errors import NotAcceptable


@lru_cache(maxsize=256)  # clients send the same few headers over and over
def choose(accept: str, offered: tuple[str, ...]) -> str:
    """The offered type that `accept` prefers; among equals the first. Raises NotAcceptable."""
    if not accept.strip():
        return offered[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    best = max(offered, key=lambda kind: _quality(kind, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"This address answers with {', '.join(offered)}; the Accept header takes none of them.")
    return best


def media_type(header: str) -> str:
    """A header's media type, without its parameters."""
    return header.partition(";")[0].strip().lower()


def _parse(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return kind, float(quality)
    except ValueError:
        return kind, 0.0


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """By the most specific range that takes this type."""
    for wanted in (kind, kind.partition("/")[0] + "/*", "*/*"):
        for range_, quality in ranges:
            if range_ == wanted:
                return quality
    return 0.0
