"""The video helper process: the bytes of a video file come in, and evenly spaced frames go out as JPEGs.

    {id, data, kind, frames, pixels, bytes}    {id, frames: [{data, width, height, at}], seconds}, or {id, error}

`at` and `seconds` are in seconds. `error` is `undecodable`, `empty`, `codec`, `pixels`, `packets`, `memory`, or
`bytes` if even a tiny image would exceed that limit.
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
from pipeline.workers.frame_selection import DecodeSegment, estimate_duration, plan_segments, select_frames
from pipeline.workers.pictures import CannotFitError, compress_to_jpeg, scale_to_pixels

MEMORY_LIMIT = 1_536 * 1024 * 1024
MAX_FRAME_PIXELS = 8192 * 4352  # 8K
MAX_PACKETS = 500_000  # video and audio of nearly two hours
DECODE_BUDGET_PIXELS = (
    1_500_000_000  # pixels decoded on the way from key frames to the sampled frames: 720 full HD frames
)

# The format is passed to ffmpeg so that it doesn't guess: a playlist would make it open other files.
FFMPEG_FORMATS = {"mkv": "matroska", "webm": "matroska", "mov": "mov", "mp4": "mov", "three_gp": "mov", "flv": "flv"}
FFMPEG_FORMATS |= {"wmv": "asf", "mpeg": "mpeg", "mpg": "mpeg"}
# The codecs of cameras, editors and web sites; ffmpeg has hundreds more, some unmaintained for years.
ALLOWED_CODECS = (
    "h264,hevc,libdav1d,av1,vp8,vp9,mpeg1video,mpeg2video,mpeg4,msmpeg4,msmpeg4v1,msmpeg4v2,wmv1,wmv2,wmv3,vc1,"
    "flv,vp6,vp6f,vp6a,h263,mjpeg,prores,theora"
)
_ROTATIONS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


Packet = Any  # av.Packet is generic in its type stubs only


class UnsupportedVideoError(Exception):
    """A video that is not sampled. The message is the `error` of the response."""


def sample_frames(data: bytes, kind: str, count: int, max_pixels: int, max_bytes: int) -> dict[str, Any]:
    """At most `count` evenly spaced frames, as the response to the parent.

    Raises UnsupportedVideoError, CannotFitError, MemoryError, and whatever ffmpeg raises for a broken file.
    """
    with _open(data, kind) as container:
        stream = _select_stream(container)
        packets, times, keyframes = _read_packets(container, stream)
        budget = DECODE_BUDGET_PIXELS // max(1, stream.width * stream.height)
        segments, over_budget = plan_segments(times, keyframes, count, budget)
        decoder = stream.codec_context
        decoder.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # a frame may be larger than the header says
        decoder.thread_count = 1
        decoder.skip_frame = "NONREF" if over_budget else "DEFAULT"
        start, unit = min(times), float(stream.time_base or 0)
        frames = []
        for segment in segments:
            for frame in select_frames(_decode_segment(decoder, packets, segment), segment.timestamps):
                time = ((frame.pts or start) - start) * unit
                frames.append({**_encode_jpeg(frame, max_pixels, max_bytes), "at": time})
        if not frames:
            raise UnsupportedVideoError("undecodable")
        return {"frames": frames, "seconds": estimate_duration(times) * unit}


def _open(data: bytes, kind: str) -> InputContainer:
    container_format = "mpegvideo" if data.startswith(b"\0\0\1\xb3") else FFMPEG_FORMATS[kind]
    options = {
        "codec_whitelist": ALLOWED_CODECS,
        "max_streams": "100",
    }  # also limits what ffmpeg decodes to probe the file
    return av.open(io.BytesIO(data), "r", format=container_format, container_options=options, io_open=_deny_open)


def _deny_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a video may not name other files")


def _select_stream(container: InputContainer) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UnsupportedVideoError("empty")
    stream = streams[0]
    if stream.codec_context.codec.name not in ALLOWED_CODECS.split(","):
        raise UnsupportedVideoError("codec")
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise UnsupportedVideoError("pixels")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _read_packets(container: InputContainer, stream: VideoStream) -> tuple[list[Packet], list[int], list[int]]:
    """The packets of the stream, their presentation times, and the indices of the key frames."""
    packets = []
    try:
        for number, packet in enumerate(container.demux()):
            if number >= MAX_PACKETS:
                raise UnsupportedVideoError("packets")
            if packet.stream_index == stream.index and packet.size:
                packets.append(packet)
    except FFmpegError:  # broken from here on: use what was read so far
        if not packets:
            raise
    if not packets:
        raise UnsupportedVideoError("empty")
    times = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
    known_times = [time for time in times if time is not None]
    if len(known_times) < len(times):
        known_times = list(range(len(times)))
    for packet, time in zip(packets, known_times, strict=True):
        packet.pts = time
    keyframes = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    return packets, known_times, keyframes or [0]


def _decode_segment(decoder: Any, packets: list[Packet], segment: DecodeSegment) -> Iterator[av.VideoFrame]:
    """The frames of a segment in presentation order. Packets that can't be decoded are skipped, as players do."""
    decoder.flush_buffers()
    for packet in [*packets[segment.first : segment.end], None]:
        try:
            frames = decoder.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            continue
        for frame in frames:
            if not frame.is_corrupt:
                yield frame


def _encode_jpeg(frame: av.VideoFrame, max_pixels: int, max_bytes: int) -> dict[str, Any]:
    width, height = scale_to_pixels(frame.width, frame.height, max_pixels)
    scaled: Any = frame.reformat(width, height, "rgb24", interpolation="AREA")
    image: Image.Image = scaled.to_image()
    if rotation := _ROTATIONS.get(frame.rotation):
        image = image.transpose(rotation)
    data, _, image = compress_to_jpeg(image, max_bytes)
    return {"data": data, "width": image.width, "height": image.height}


def handle(message: dict[str, Any]) -> dict[str, Any]:
    try:
        return sample_frames(message["data"], message["kind"], message["frames"], message["pixels"], message["bytes"])
    except UnsupportedVideoError as error:
        return {"error": str(error)}
    except CannotFitError:
        return {"error": "bytes"}
    except MemoryError:
        raise
    except Exception:  # ffmpeg may raise almost anything for a broken file
        return {"error": "undecodable"}


if __name__ == "__main__":
    av.logging.set_level(None)
    serve(handle, MEMORY_LIMIT)
