"""What the tests of stages and streams work with: inferences, and answers that are counted, held up or broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from pipeline.frames import EncodedFrame, Frame
from pipeline.messages import Call, Event, Events, Inference, InferenceRequest, Message, Parameters, Reply, Route
from pipeline.presets import ModelPreset
from pipeline.schema import check
from pipeline.stage import Availability, Context, Proceed

T = TypeVar("T")


def preset(**keys: Any) -> ModelPreset:
    return check(
        {"provider": "counted", "model": "upstream", "capabilities": ["text", "image", "stream"]} | keys, ModelPreset
    )


def asked(
    *frames: Frame | EncodedFrame,
    text: str = "Hi",
    parameters: Parameters | None = None,
    called: Reply | None = None,
    **keys: Any,
) -> Inference:
    """An inference of the model `m`, whose preset has these keys."""
    request = InferenceRequest((Message("user", (text, *frames)),), parameters or Parameters(), request_id="r")
    model = preset(**keys)
    call = Call(called, request.received, request.received) if called is not None else None
    return Inference(
        request, "m", "m", {"m": model}, request.messages, request.parameters, routed=Route("m", model), called=call
    )


async def play(steps: Sequence[Any]) -> AsyncGenerator[Sequence[Any], None]:
    """Yields the steps, each by itself; waits for those that are events, raises those that are exceptions."""
    for step in steps:
        if isinstance(step, asyncio.Event):
            await step.wait()
        elif isinstance(step, BaseException):
            raise step
        else:
            yield [step]


class Ledger:
    """Counts how often each thing that was opened has been closed."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    def open(self) -> Any:
        """The close of one thing more."""
        self.closed.append(0)
        number = len(self.closed) - 1

        def close() -> None:
            self.closed[number] += 1

        return close

    def reply(self, *steps: Any) -> Reply:
        return Reply(play(steps), self.open(), id="msg_1", model="upstream", streamed=True)


class Counted:
    """A provider whose every reply plays `steps`; what happens before the first of them is up to `before`."""

    def __init__(self, *steps: Any, before: Sequence[Any] = ()) -> None:
        self.steps = steps
        self.before = before
        self.ledger = Ledger()
        self.reply: Reply | None = None  # in place of the steps
        self.entered = asyncio.Event()

    async def open(self, route: Route, inference: Inference) -> Reply:
        self.entered.set()
        async for _ in play(self.before):
            pass
        return self.reply or self.ledger.reply(*self.steps)

    async def availability(self, preset: ModelPreset) -> Availability:
        return Availability("available")


async def all_of(iterable: Any) -> list[Any]:
    """Everything, and then the close."""
    try:
        return [item async for batch in iterable for item in batch]
    finally:
        await iterable.aclose()


async def cancel(run: Coroutine[Any, Any, Any], when: Awaitable[Any]) -> None:
    """Starts a task, and cancels it when it has come so far."""
    task = asyncio.create_task(run)
    await when
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def until(condition: Callable[[], bool]) -> None:
    """Gives the loop turns until it is so."""
    while not condition():  # noqa: ASYNC110 - what becomes true is a counter of the product's own
        await asyncio.sleep(0)


async def close(plugin: object) -> None:
    """Stages and providers need not have a `close`."""
    if hasattr(plugin, "close"):
        await plugin.close()


class Broken:
    """A stage with a bug: before it proceeds, in the `middle` of the events, at their `close`, or it is `silent`."""

    def __init__(self, where: str) -> None:
        self._where = where

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        if self._where == "before":
            raise ZeroDivisionError("secret")
        events = await proceed(inference)
        if self._where == "close":
            events.hold(self._fail)
            return events
        return Events(self._tell(events), events.aclose)

    async def _tell(self, events: Events) -> AsyncGenerator[Sequence[Event], None]:
        async for batch in events:
            if self._where == "middle":
                yield batch
                raise ZeroDivisionError("secret")

    def _fail(self) -> None:
        raise ZeroDivisionError("secret")

    @classmethod
    def create(cls, options: Mapping[str, Any], context: Context) -> Broken:
        return cls(options.get("where", "before"))
