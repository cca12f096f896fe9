"""The bytes of pictures and videos, on their way into a Converse request, past the SDK's slow JSON.

No provider of its own. The SDK would hold the loop for 10 ms with every megabyte (base64, then JSON over all of it);
so it is given a mark in place of each, by hooks that it offers for this, and the base64 is put where the marks are.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import pybase64

_SERVICE: Final = "bedrock-runtime"
_KEPT: Final = "forgeline_media"  # the name, in the SDK's own memory of one call, of what the marks stand for


def install(client: Any) -> None:
    """Every call of this client goes so."""
    client.meta.events.register(f"provide-client-params.{_SERVICE}", _mark)
    client.meta.events.register(f"before-call.{_SERVICE}", _fill)


def _mark(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Takes the bytes out. `params` are one call's own, made for it."""
    kept = context[_KEPT] = {}
    for turn in params["messages"]:
        for block in turn["content"]:
            media = block.get("image") or block.get("video")
            if media is not None:
                mark = secrets.token_bytes(18)  # nobody can have guessed it in a text; its base64 has no padding
                kept[pybase64.b64encode(mark)] = media["source"]["bytes"]
                media["source"]["bytes"] = mark


def _fill(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Puts them into the body, which is not signed yet."""
    pieces, rest = [], params["body"]
    for mark, data in context[_KEPT].items():
        before, _mark, rest = rest.partition(mark)
        pieces += [before, pybase64.b64encode(data)]
    if pieces:
        params["body"] = b"".join([*pieces, rest])
