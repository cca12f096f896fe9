"""What is measured: the upstream itself, the passthrough, Forgeline; how each is started and asked."""

import base64
import json
import random
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.proc import Served, StartFailed, module
from benchmarks.upstream import ANSWER, WORDS

PROMPT = "Sum up what the nodes of this cluster are for, and why one of them waits. " + "".join(WORDS[:-1]) * 16
PIPELINE = "stages: [decode_frames, route_model, fit_frames, limit, invoke, normalize_envelope]\n"
SIDE = 1000  # pixels; noise does not compress, so the picture has about 3 bytes per pixel


@dataclass(frozen=True)
class Question:
    """One kind of request, in both dialects: OpenAI's for the upstream and the passthrough, Forgeline's own."""

    model: str  # the mock's name for it, and the preset's
    chunks: int = 0  # 0: a plain answer
    picture: bool = False


@dataclass(frozen=True)
class Asked:
    path: str
    accept: str
    body: Path
    marker: str
    chunks: int
    end: str


class OpenAI:
    """The upstream itself, or the passthrough before it."""

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
        if not question.chunks:
            return Asked(f"/api/models/{question.model}", "application/json", body, ANSWER, 1, "}")
        path = f"/api/stream/{question.model}"
        return Asked(path, "text/event-stream", body, "event: chunk\n", question.chunks, "event: complete\n")


Target = OpenAI | Forgeline


def body_file(work: Path, dialect: str, question: Question) -> Path:
    path = work / f"{dialect}-{question.model}{'-picture' if question.picture else ''}.json"
    if not path.exists():
        picture = base64.b64encode(noise_png()).decode() if question.picture else None
        make = openai_body if dialect == "openai" else forgeline_body
        path.write_text(json.dumps(make(question, picture)))
    return path


def openai_body(question: Question, picture: str | None) -> dict[str, object]:
    content: object = PROMPT
    if picture is not None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        content = [{"type": "text", "text": PROMPT}, image]
    body = {"model": question.model, "messages": [{"role": "user", "content": content}], "max_tokens": 100}
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if question.chunks else {})


def forgeline_body(question: Question, picture: str | None) -> dict[str, object]:
    body: dict[str, object] = {"text": PROMPT, "max_tokens": 100}
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


def start_passthrough(core: int, upstream: Served, work: Path) -> OpenAI:
    command = module("passthrough", f"http://127.0.0.1:{upstream.port}")
    return OpenAI("passthrough", Served(command, core, work / "passthrough.log"), work)


def start_forgeline(core: int, upstream: Served, work: Path, questions: list[Question]) -> Forgeline:
    """As shipped: no option but where its presets and its data are."""
    script = Path(__file__).parent.parent / "run.py"
    if not script.exists():
        raise StartFailed("there is no run.py")
    write_presets(work / "presets", upstream.port, questions)
    (work / "data").mkdir()
    options = ["--port", "0", "--presets", str(work / "presets"), "--data", str(work / "data")]
    served = Served([sys.executable, str(script), *options], core, work / "forgeline.log")
    try:
        wait_ready(served.port)
    except BaseException:
        served.end()
        raise
    return Forgeline(served, work)


def write_presets(folder: Path, upstream: int, questions: list[Question]) -> None:
    (folder / "models").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    for question in questions:
        capabilities = "[text, image, stream]" if question.chunks else "[text, image]"
        (folder / "models" / f"{question.model}.yaml").write_text(
            f"provider: openai_compatible\nmodel: {question.model}\n"
            f"base_url: http://127.0.0.1:{upstream}/v1\ncapabilities: {capabilities}\n"
        )


def wait_ready(port: int, timeout: float = 20) -> None:
    deadline, last = time.monotonic() + timeout, "nothing"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.read(200)!r}"
        except OSError as error:
            last = str(error)
        time.sleep(0.05)
    raise StartFailed(f"/readyz did not answer 200 within {timeout:.0f} s; its last answer: {last}")
