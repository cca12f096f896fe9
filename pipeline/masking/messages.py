"""Secrets in whole texts: the words of an upstream or of AWS, before they become part of an error."""

from __future__ import annotations

from typing import Final

from pipeline.masking.patterns import MESSAGE_PATTERNS

MAX_MESSAGE_CHARS: Final = 500  # of somebody else's message that are passed on


def mask_identifiers(text: str) -> str:
    """The text without account ids, keys, tokens and signed addresses."""
    for row in MESSAGE_PATTERNS:
        text = row.pattern.sub(row.replacement, text)
    return text


def clean_message(text: str, secret: str = "") -> str:
    """On one line, at most `MAX_MESSAGE_CHARS` characters, and without the secret, should an upstream repeat it."""
    if secret:
        text = text.replace(secret, "[key]")
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]
