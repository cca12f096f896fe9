"""A worker that takes pictures out of a video: a file's bytes come in, and evenly spaced frames go out as JPEGs.

Asked `{data, kind, frames, pixels, bytes}`, it answers `{frames: [{data, width, height, at}], seconds}`, both times in
seconds, or `{error}`: `undecodable`, `empty`, `codec`, `pixels`, `packets`, `memory`, or `bytes` where even a tiny
picture would be larger than that.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NoReturn

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.stream import VideoStream
from PIL import Image

from pipeline.workers.child import serve
from pipeline.workers.pictures import TooManyBytesError, size_within, squeeze
from pipeline.workers.spacing import Stretch, length, pick, plan

MEMORY = 1_536 * 1024 * 1024
MAX_PIXELS = 8192 * 4352  # of one picture: 8K
MAX_PACKETS = 500_000  # pictures and sound of nearly two hours
BUDGET = 1_500_000_000  # pixels that may be decoded only to get from a key frame to the wanted one: 720 times full HD

# ffmpeg is told what the file is, so that it looks for nothing else in it: a playlist would have it open other files.
FORMATS = {"mkv": "matroska", "webm": "matroska", "mov": "mov", "mp4": "mov", "three_gp": "mov", "flv": "flv"}
FORMATS |= {"wmv": "asf", "mpeg": "mpeg", "mpg": "mpeg"}
# What cameras, editors and sites make; ffmpeg knows hundreds more, which nobody has looked at for long.
CODECS = (
    "h264,hevc,libdav1d,av1,vp8,vp9,mpeg1video,mpeg2video,mpeg4,msmpeg4,msmpeg4v1,msmpeg4v2,wmv1,wmv2,wmv3,vc1,"
    "flv,vp6,vp6f,vp6a,h263,mjpeg,prores,theora"
)
_ROTATIONS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


Packet = Any  # what av calls Packet[VideoStream] to mypy alone


class RefusedError(Exception):
    """The video is none that pictures are taken of; the message is the answer's `error`."""


def sample(data: bytes, kind: str, count: int, max_pixels: int, max_bytes: int) -> dict[str, Any]:
    """Raises RefusedError, TooManyBytesError, MemoryError, and whatever ffmpeg raises for a file that is broken."""
    with _open(data, kind) as container:
        stream = _pictures(container)
        packets, times, keys = _read(container, stream)
        budget = BUDGET // max(1, stream.width * stream.height)
        stretches, hurry = plan(times, keys, count, budget)
        decoder = stream.codec_context
        decoder.options = {"max_pixels": str(MAX_PIXELS)}  # a picture in the middle may be larger than the header says
        decoder.thread_count = 1
        decoder.skip_frame = "NONREF" if hurry else "DEFAULT"
        start, unit = min(times), float(stream.time_base or 0)
        frames = []
        for stretch in stretches:
            for frame in pick(_decode(decoder, packets, stretch), stretch.moments):
                at = ((frame.pts or start) - start) * unit
                frames.append({**_jpeg(frame, max_pixels, max_bytes), "at": at})
        if not frames:
            raise RefusedError("undecodable")
        return {"frames": frames, "seconds": length(times) * unit}


def _open(data: bytes, kind: str) -> InputContainer:
    form = "mpegvideo" if data.startswith(b"\0\0\1\xb3") else FORMATS[kind]
    options = {"codec_whitelist": CODECS, "max_streams": "100"}  # of what it decodes only to look at it
    return av.open(io.BytesIO(data), "r", format=form, container_options=options, io_open=_refuse_to_open)


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a video may not name other files")


def _pictures(container: InputContainer) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise RefusedError("empty")
    stream = streams[0]
    if stream.codec_context.codec.name not in CODECS.split(","):
        raise RefusedError("codec")
    if stream.width * stream.height > MAX_PIXELS:
        raise RefusedError("pixels")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _read(container: InputContainer, stream: VideoStream) -> tuple[list[Packet], list[int], list[int]]:
    """The packets of the pictures, when each is shown, and which of them are key frames."""
    packets = []
    try:
        for number, packet in enumerate(container.demux()):
            if number >= MAX_PACKETS:
                raise RefusedError("packets")
            if packet.stream_index == stream.index and packet.size:
                packets.append(packet)
    except FFmpegError:  # broken from here on: what was read so far may do
        if not packets:
            raise
    if not packets:
        raise RefusedError("empty")
    times = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        known = list(range(len(times)))
    for packet, time in zip(packets, known, strict=True):
        packet.pts = time
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    return packets, known, keys or [0]


def _decode(decoder: Any, packets: list[Packet], stretch: Stretch) -> Iterator[av.VideoFrame]:
    """The frames of a stretch, as they show. A packet that can't be decoded is left out, as players do."""
    decoder.flush_buffers()
    for packet in [*packets[stretch.first : stretch.end], None]:
        try:
            frames = decoder.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            continue
        for frame in frames:
            if not frame.is_corrupt:
                yield frame


def _jpeg(frame: av.VideoFrame, max_pixels: int, max_bytes: int) -> dict[str, Any]:
    width, height = size_within(frame.width, frame.height, max_pixels)
    scaled: Any = frame.reformat(width, height, "rgb24", interpolation="AREA")
    image: Image.Image = scaled.to_image()
    if turn := _ROTATIONS.get(frame.rotation):
        image = image.transpose(turn)
    data, _, image = squeeze(image, max_bytes)
    return {"data": data, "width": image.width, "height": image.height}


def answer(message: dict[str, Any]) -> dict[str, Any]:
    try:
        return sample(message["data"], message["kind"], message["frames"], message["pixels"], message["bytes"])
    except RefusedError as error:
        return {"error": str(error)}
    except TooManyBytesError:
        return {"error": "bytes"}
    except MemoryError:
        raise
    except Exception:  # a broken file makes ffmpeg raise almost anything
        return {"error": "undecodable"}


if __name__ == "__main__":
    av.logging.set_level(None)
    serve(answer, MEMORY)
