"""What answers questions, and how each is asked: OpenAI's dialect, and Forgeline's own."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.answers import ANSWER, WORDS
from benchmarks.proc import Served

PROMPT = "Sum up what the nodes of this cluster are for, and why one of them waits. " + "".join(WORDS[:-1]) * 16
SIDE = 1000  # pixels; noise does not compress, so the picture has about 3 bytes per pixel


@dataclass(frozen=True)
class Question:
    """One kind of request."""

    model: str  # the mock's name for it, and the preset's
    chunks: int = 0  # 0: a plain answer
    picture: bool = False
    others: tuple[str, ...] = ()  # further models of the same request, which only Forgeline can ask
    provider: str = "openai_compatible"  # of the preset

    @property
    def preset(self) -> str:
        return self.model if self.provider == "openai_compatible" else f"{self.provider}-{self.model}"


@dataclass(frozen=True)
class Asked:
    path: str
    accept: str
    body: Path
    marker: str
    chunks: int
    end: str
    headers: Mapping[str, str] = field(default_factory=dict)  # beside those of every request


class OpenAI:
    """The upstream itself, or what passes on OpenAI's requests to it."""

    def __init__(self, name: str, served: Served, work: Path) -> None:
        self.name, self.served, self._work = name, served, work

    def asked(self, question: Question) -> Asked:
        body = body_file(self._work, "openai", question)
        if not question.chunks:
            return Asked("/v1/chat/completions", "application/json", body, ANSWER, 1, "}")
        return Asked(
            "/v1/chat/completions", "text/event-stream", body, '"content":"', question.chunks, "data: [DONE]\n\n"
        )


class Forgeline:
    name = "forgeline"

    def __init__(self, served: Served, work: Path) -> None:
        self.served, self._work = served, work

    def asked(self, question: Question) -> Asked:
        body = body_file(self._work, "forgeline", question)
        if question.others:
            return Asked("/api/multi-inference", "application/json", body, ANSWER, 1 + len(question.others), "}")
        if not question.chunks:
            return Asked(f"/api/models/{question.preset}", "application/json", body, ANSWER, 1, "}")
        path = f"/api/stream/{question.preset}"
        return Asked(path, "text/event-stream", body, "event: chunk\n", question.chunks, "event: complete\n")


Target = OpenAI | Forgeline


def body_file(work: Path, dialect: str, question: Question) -> Path:
    parts = [dialect, question.preset, *question.others, *(["picture"] if question.picture else [])]
    path = work / f"{'-'.join(parts)}.json"
    if not path.exists():
        picture = base64.b64encode(noise_png()).decode() if question.picture else None
        make = openai_body if dialect == "openai" else forgeline_body
        path.write_text(json.dumps(make(question, picture)))
    return path


def openai_body(question: Question, picture: str | None = None) -> dict[str, object]:
    content: object = PROMPT
    if picture is not None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        content = [{"type": "text", "text": PROMPT}, image]
    body = {"model": question.model, "messages": [{"role": "user", "content": content}], "max_tokens": 100}
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if question.chunks else {})


def forgeline_body(question: Question, picture: str | None = None) -> dict[str, object]:
    body: dict[str, object] = {"text": PROMPT, "max_tokens": 100}
    if question.others:
        body["models"] = [question.model, *question.others]
    return body if picture is None else body | {"frames": [picture]}


def noise_png() -> bytes:
    """A real picture that does not compress; the same in every run."""
    noise = random.Random(1)  # noqa: S311 - pixels, no secret
    rows = b"".join(b"\0" + noise.randbytes(3 * SIDE) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
