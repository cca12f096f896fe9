"""What a request shows, decoded: pictures, or one whole video where it says that it has one."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.messages import MediaType, Message, ToolCall, ToolResult


def decode_all(
    messages: tuple[Message, ...], media_type: MediaType, max_pixels: int | None = None
) -> tuple[Message, ...]:
    """The messages, each of their frames decoded. Raises InvalidRequest for what is wrong whoever is asked."""
    return tuple(_decode(message, media_type, max_pixels) for message in messages)


def _decode(message: Message, media_type: MediaType, max_pixels: int | None) -> Message:
    count = message.shown
    if not count:
        return message
    parts: list[str | Frame | Video | ToolCall | ToolResult] = []
    for part in message.parts:
        if isinstance(part, EncodedFrame):
            shown = part.decode()
            _check(shown, part.name, media_type, max_pixels)
            parts.append(shown)
        else:
            parts.append(part)
    if count > 1 and any(isinstance(part, Video) for part in parts):
        raise InvalidRequest(
            f"frames: expected either one whole video file or pictures in their order; {count} came, "
            "and not all of them are pictures."
        )
    return replace(message, parts=tuple(parts))


def _check(shown: Frame | Video, name: str, media_type: MediaType, max_pixels: int | None) -> None:
    if isinstance(shown, Video):
        if media_type != "video":
            raise InvalidRequest(
                f'{name}: this is a video ({shown.kind.upper()}), not a picture; set mediaType to "video".'
            )
    elif max_pixels is not None and shown.pixels > max_pixels:
        raise InvalidRequest(f"{name}: {shown.width} x {shown.height} pixels; at most {max_pixels:,} are unpacked.")
