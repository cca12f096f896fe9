"""Decoding of the frames in a request: pictures, or one whole video file if its media type is video."""

from __future__ import annotations

from dataclasses import replace

from pipeline.envelope import MediaType
from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.messages import Message, ToolCall, ToolResult


def decode_messages(
    messages: tuple[Message, ...], media_type: MediaType, max_pixels: int | None = None
) -> tuple[Message, ...]:
    """The messages with all frames decoded.

    Raises InvalidRequest for frames that no model can use: broken or mixed files, or more than `max_pixels`.
    """
    return tuple(_decode_message(message, media_type, max_pixels) for message in messages)


def _decode_message(message: Message, media_type: MediaType, max_pixels: int | None) -> Message:
    media_count = message.media_count
    if not media_count:
        return message
    parts: list[str | Frame | Video | ToolCall | ToolResult] = []
    for part in message.parts:
        if isinstance(part, EncodedFrame):
            media = part.decode()
            _check_media(media, part.name, media_type, max_pixels)
            parts.append(media)
        else:
            parts.append(part)
    if media_count > 1 and any(isinstance(part, Video) for part in parts):
        raise InvalidRequest(
            f"frames: expected either one whole video file or pictures in their order; {media_count} came, "
            "and not all of them are pictures."
        )
    return replace(message, parts=tuple(parts))


def _check_media(media: Frame | Video, name: str, media_type: MediaType, max_pixels: int | None) -> None:
    if isinstance(media, Video):
        if media_type != "video":
            raise InvalidRequest(
                f'{name}: this is a video ({media.kind.upper()}), not a picture; set mediaType to "video".'
            )
    elif max_pixels is not None and media.pixels > max_pixels:
        raise InvalidRequest(f"{name}: {media.width} x {media.height} pixels; at most {max_pixels:,} are unpacked.")
