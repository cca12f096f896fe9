"""Factories for the tests of stages and streams: inferences, a fake provider, and a stage that raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from pipeline.envelope import Envelope, TokenUsage
from pipeline.errors import ForgelineError
from pipeline.media.frames import EncodedFrame, Frame
from pipeline.messages import (
    Event,
    EventStream,
    Inference,
    InferenceRequest,
    Message,
    ModelResponse,
    ModelTarget,
    Parameters,
    UpstreamCall,
)
from pipeline.plugins import load_plugins
from pipeline.presets.models import ModelPreset
from pipeline.stage import Availability, Context, Proceed, Stage

T = TypeVar("T")


PLUGINS = load_plugins()


def make_preset(**keys: Any) -> ModelPreset:
    return PLUGINS.parse_model_preset(
        {"provider": "fake", "model": "upstream", "capabilities": ["text", "image", "stream"]} | keys
    )


def create_stage(name: str, options: Mapping[str, Any] | None = None, context: Context | None = None) -> Stage:
    return PLUGINS.create_stage(name, options or {}, context or Context())


def create_provider(name: str, options: Mapping[str, Any] | None = None, context: Context | None = None) -> Any:
    return PLUGINS.create_provider(name, options or {}, context or Context())


def make_inference(
    *frames: Frame | EncodedFrame,
    text: str = "Hi",
    parameters: Parameters | None = None,
    response: ModelResponse | None = None,
    **keys: Any,
) -> Inference:
    """Make an inference of the model `m`, whose preset has these keys."""
    request = InferenceRequest((Message("user", (text, *frames)),), parameters or Parameters(), request_id="r")
    model = make_preset(**keys)
    call = UpstreamCall(response, request.received_at, request.received_at) if response is not None else None
    return Inference(
        request,
        "m",
        "m",
        {"m": model},
        request.messages,
        request.parameters,
        selected_target=ModelTarget("m", model),
        started_call=call,
    )


async def play_steps(steps: Sequence[Any]) -> AsyncGenerator[Sequence[Any], None]:
    """Yield each step as a batch; wait for those that are `asyncio.Event`s, raise those that are exceptions."""
    for step in steps:
        if isinstance(step, asyncio.Event):
            await step.wait()
        elif isinstance(step, BaseException):
            raise step
        else:
            yield [step]


class Rejection:
    """An outcome: another stage raises this error, so that the upstream is not called."""

    def __init__(self, error: ForgelineError) -> None:
        self.error = error


def fail_call(inference: Inference, error: BaseException) -> NoReturn:
    """Raise the error of an upstream call, as `invoke` does."""
    inference.failed_call_seconds.append(0.01)
    raise error


class CloseCounter:
    """Counts how often each tracked object was closed."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def track(self) -> Any:
        """Return a cleanup that counts its calls, for one more object."""
        self.counts.append(0)
        number = len(self.counts) - 1

        def close() -> None:
            self.counts[number] += 1

        return close

    def make_response(self, *steps: Any) -> ModelResponse:
        return ModelResponse(play_steps(steps), self.track(), id="msg_1", model="upstream", streamed=True)


class FakeProvider:
    """A provider whose every response plays `steps`, after `steps_before` without a response."""

    def __init__(self, *steps: Any, steps_before: Sequence[Any] = ()) -> None:
        self.steps = steps
        self.steps_before = steps_before
        self.close_counter = CloseCounter()
        self.response: ModelResponse | None = None  # instead of the steps
        self.entered = asyncio.Event()

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        self.entered.set()
        async for _ in play_steps(self.steps_before):
            pass
        return self.response or self.close_counter.make_response(*self.steps)

    async def availability(self, preset: ModelPreset) -> Availability:
        return Availability("available")


async def collect(iterable: Any) -> list[Any]:
    """Read all items, then close."""
    try:
        return [item async for batch in iterable for item in batch]
    finally:
        await iterable.aclose()


async def cancel_when(coroutine: Coroutine[Any, Any, Any], reached: Awaitable[Any]) -> None:
    """Run the coroutine in a task, and cancel the task once `reached` returns."""
    task = asyncio.create_task(coroutine)
    await reached
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def close_plugin(plugin: object) -> None:
    """Call `close`, which stages and providers need not have."""
    if hasattr(plugin, "close"):
        await plugin.close()


class BrokenStage:
    """A stage that raises `before` it proceeds, in the `middle` of the events or at their `close`, or is `silent`."""

    def __init__(self, where: str) -> None:
        self._where = where

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        if self._where == "before":
            raise ZeroDivisionError("secret")
        events = await proceed(inference)
        if self._where == "close":
            events.add_cleanup(self._raise)
            return events
        return EventStream(self._events(events), events.aclose)

    async def _events(self, events: EventStream) -> AsyncGenerator[Sequence[Event], None]:
        async for batch in events:
            if self._where == "middle":
                yield batch
                raise ZeroDivisionError("secret")

    def _raise(self) -> None:
        raise ZeroDivisionError("secret")

    @classmethod
    def create(cls, options: Mapping[str, Any], context: Context) -> BrokenStage:
        return cls(options.get("where", "before"))


def make_envelope(text: str = "Hi", usage: TokenUsage | None = None) -> Envelope:
    return {
        "time": "2026-11-28T12:00:00+00:00",
        "request": {"text": "hi", "frames_count": 0, "media_type": "image", "max_tokens": 9, "temperature": None},
        "response": {
            "id": "1",
            "model": "m",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": usage or {"input_tokens": 3, "output_tokens": None},
        },
        "metadata": {
            "request_id": "r",
            "model": "m",
            "provider": "scripted",
            "time_to_first_token_ms": None,
            "duration_ms": 1.5,
            "overhead_ms": 0.5,
        },
    }
