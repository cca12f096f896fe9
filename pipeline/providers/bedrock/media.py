"""Pictures and videos in a Converse request, without the SDK's slow JSON.

The SDK would encode the media as base64 and then the whole body as JSON, which holds the event loop. Through hooks that
the SDK offers, the media are replaced by short markers before that, and their base64 is inserted into the body after.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import pybase64

_SERVICE: Final = "bedrock-runtime"
_CONTEXT_KEY: Final = "forgeline_media"  # in the SDK's context of one call: the media by the base64 of their marker


def register_hooks(client: Any) -> None:
    """Register the hooks for every call of this client."""
    client.meta.events.register(f"provide-client-params.{_SERVICE}", _replace_media)
    client.meta.events.register(f"before-call.{_SERVICE}", _insert_media)


def _replace_media(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Replace the bytes of all media by markers. `params` belong to this call alone, so they may be changed."""
    media_by_marker = context[_CONTEXT_KEY] = {}
    for message in params["messages"]:
        for block in message["content"]:
            media = block.get("image") or block.get("video")
            if media is not None:
                # No text can contain it: it is random. Its base64 has no padding.
                marker = secrets.token_bytes(18)
                media_by_marker[pybase64.b64encode(marker)] = media["source"]["bytes"]
                media["source"]["bytes"] = marker


def _insert_media(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Replace the markers by the base64 of the media, in the body, which is not signed yet."""
    pieces, rest = [], params["body"]
    for marker, data in context[_CONTEXT_KEY].items():
        before, _marker, rest = rest.partition(marker)
        pieces += [before, pybase64.b64encode(data)]
    if pieces:
        params["body"] = b"".join([*pieces, rest])
