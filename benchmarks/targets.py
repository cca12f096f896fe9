"""Targets of requests, and how a request to each looks: OpenAI's dialect, and Forgeline's own."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.canned_responses import RESPONSE_TEXT, WORDS
from benchmarks.processes import ServerProcess

PROMPT = "Sum up what the nodes of this cluster are for, and why one of them waits. " + "".join(WORDS[:-1]) * 16
PICTURE_SIDE = 1000  # pixels; noise does not compress: 3 bytes per pixel


@dataclass(frozen=True)
class RequestSpec:
    """One kind of request, for any target."""

    model: str  # its name at the mock upstream and in the preset
    chunks: int = 0  # of a stream; 0: a plain response
    picture: bool = False
    more_models: tuple[str, ...] = ()  # of the same request; only Forgeline supports them
    provider: str = "openai_compatible"  # in the preset

    @property
    def preset(self) -> str:
        return self.model if self.provider == "openai_compatible" else f"{self.provider}-{self.model}"


@dataclass(frozen=True)
class PreparedRequest:
    """A request to one target, and how a correct response is recognised."""

    path: str
    accept: str
    body: Path  # a file
    marker: str  # occurs once in each chunk
    chunks: int
    end: str  # occurs in the last bytes of the response
    headers: Mapping[str, str] = field(default_factory=dict)  # in addition to those of every request


class OpenAITarget:
    """The upstream itself, or a proxy that forwards OpenAI requests to it."""

    def __init__(self, name: str, process: ServerProcess, work_dir: Path) -> None:
        self.name, self.process, self._work_dir = name, process, work_dir

    def prepare(self, spec: RequestSpec) -> PreparedRequest:
        body = body_file(self._work_dir, "openai", spec)
        if not spec.chunks:
            return PreparedRequest("/v1/chat/completions", "application/json", body, RESPONSE_TEXT, 1, "}")
        return PreparedRequest(
            "/v1/chat/completions", "text/event-stream", body, '"content":"', spec.chunks, "data: [DONE]\n\n"
        )


class ForgelineTarget:
    """Forgeline's own API."""

    name = "forgeline"

    def __init__(self, process: ServerProcess, work_dir: Path) -> None:
        self.process, self._work_dir = process, work_dir

    def prepare(self, spec: RequestSpec) -> PreparedRequest:
        body = body_file(self._work_dir, "forgeline", spec)
        if spec.more_models:
            return PreparedRequest(
                "/api/multi-inference", "application/json", body, RESPONSE_TEXT, 1 + len(spec.more_models), "}"
            )
        if not spec.chunks:
            return PreparedRequest(f"/api/models/{spec.preset}", "application/json", body, RESPONSE_TEXT, 1, "}")
        path = f"/api/stream/{spec.preset}"
        return PreparedRequest(path, "text/event-stream", body, "event: chunk\n", spec.chunks, "event: complete\n")


Target = OpenAITarget | ForgelineTarget


def body_file(work_dir: Path, dialect: str, spec: RequestSpec) -> Path:
    parts = [dialect, spec.preset, *spec.more_models, *(["picture"] if spec.picture else [])]
    path = work_dir / f"{'-'.join(parts)}.json"
    if not path.exists():
        picture = base64.b64encode(noise_png()).decode() if spec.picture else None
        build_body = openai_body if dialect == "openai" else forgeline_body
        path.write_text(json.dumps(build_body(spec, picture)))
    return path


def openai_body(spec: RequestSpec, picture: str | None = None) -> dict[str, object]:
    content: object = PROMPT
    if picture is not None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        content = [{"type": "text", "text": PROMPT}, image]
    body = {"model": spec.model, "messages": [{"role": "user", "content": content}], "max_tokens": 100}
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if spec.chunks else {})


def forgeline_body(spec: RequestSpec, picture: str | None = None) -> dict[str, object]:
    body: dict[str, object] = {"text": PROMPT, "max_tokens": 100}
    if spec.more_models:
        body["models"] = [spec.model, *spec.more_models]
    return body if picture is None else body | {"frames": [picture]}


def noise_png() -> bytes:
    """A valid PNG that does not compress; the same in every run."""
    noise = random.Random(1)  # noqa: S311 - pixels, no secret
    rows = b"".join(b"\0" + noise.randbytes(3 * PICTURE_SIDE) for _ in range(PICTURE_SIDE))
    header = struct.pack(">IIBBBBB", PICTURE_SIDE, PICTURE_SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + chunk_type + data + struct.pack(">I", zlib.crc32(chunk_type + data))
        for chunk_type, data in parts
    )
