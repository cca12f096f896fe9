"""scripted: answers that stand in the preset itself, for tests and demos; no model and no network.

The preset's `model` is the script: steps, separated by `;`, played in order.

    model: "pause:0.5; say:Hello there, world; usage:3,4"

    say:TEXT        one chunk per word, spaces kept
    echo            the same with the text that was asked, tools' results before it
    think:TEXT      one chunk of reasoning
    chunks:N        N chunks: "tok0 ", "tok1 ", ...
    pause:SECONDS   waits
    hang            never goes on, until it is cancelled
    fail:CODE       raises the error with this code (rate_limited, model_error, unavailable, ...)
    call:NAME,ARGS  asks for a tool, with these arguments (JSON), unless the last message holds a tool's result
    usage:IN,OUT    the tokens that are reported; none otherwise
    stop:REASON     the reason for the end; end_turn otherwise
    unstreamed      the answer comes whole
    perhaps:P,STEP  plays STEP with the probability P

What fails before the first chunk is an exception out of `open`, as it is with every provider.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from pipeline.errors import (
    Cancelled,
    ForgelineError,
    InvalidRequest,
    ModelError,
    ModelNotDeployed,
    RateLimited,
    Unavailable,
    UnknownModel,
)
from pipeline.messages import (
    Chunk,
    Inference,
    Message,
    Part,
    Reasoning,
    Reply,
    Route,
    Stop,
    StopReason,
    ToolCallPiece,
    Usage,
)
from pipeline.presets import ModelPreset
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context

Step = tuple[str, str]

BREATH: Final = 64  # chunks after which the loop gets a turn, as it does between the packets of a real answer

_ERRORS: Final[dict[str, type[ForgelineError]]] = {
    error.code: error
    for error in (InvalidRequest, UnknownModel, RateLimited, ModelError, ModelNotDeployed, Unavailable, Cancelled)
}
_REASONS: Final[dict[str, StopReason]] = {reason: reason for reason in get_args(StopReason)}
_ARGUMENTS: Final = {
    "say": r".+",
    "echo": "",
    "think": r".+",
    "chunks": r"\d{1,9}",
    "pause": r"\d{1,6}(\.\d+)?",
    "hang": "",
    "call": r"[^,]+,.+",
    "fail": "|".join(_ERRORS),
    "usage": r"\d{1,9},\d{1,9}",
    "stop": "|".join(_REASONS),
    "unstreamed": "",
    "perhaps": r"(0|1|0?\.\d+),.+",
}


def read_script(script: str) -> list[Step]:
    """The steps as (name, argument). Raises Unavailable that names the step which can't be played."""
    return [_read_step(written) for written in filter(None, map(str.strip, script.split(";")))]


def _read_step(written: str) -> Step:
    name, _, argument = written.partition(":")
    expected = _ARGUMENTS.get(name)
    if expected is None:
        known = ", ".join(_ARGUMENTS)
        raise Unavailable(f"The script in this preset's model has a step {written!r}; there are {known}.")
    if not re.fullmatch(expected, argument, re.DOTALL):
        raise Unavailable(f"The script in this preset's model has a step {written!r} that can't be played.")
    if name == "perhaps":
        _read_step(argument.partition(",")[2])
    return name, argument


def _drawn(steps: list[Step]) -> Iterator[Step]:
    """The steps that are played this time."""
    for name, argument in steps:
        if name != "perhaps":
            yield name, argument
            continue
        probability, _, step = argument.partition(",")
        if random.random() < float(probability):  # noqa: S311 - no secret
            yield from _drawn([_read_step(step)])


@dataclass
class _Play:
    """How far one reply has come."""

    ended: bool = False
    closed: bool = False


class Scripted:
    """`calls` were made; `replies` are not closed yet; `cancelled` were given up before their end."""

    takes = frozenset({"tools"})

    def __init__(self) -> None:
        self.calls = 0
        self.replies = 0
        self.cancelled = 0

    async def open(self, route: Route, inference: Inference) -> Reply:
        self.calls += 1
        steps, play = list(_drawn(read_script(route.preset.model))), _Play()
        streamed = ("unstreamed", "") not in steps
        parts = _perform(steps, inference.messages[-1], play)
        try:
            first = [await anext(parts)] if streamed else _joined([part async for part in parts])
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.replies += 1
        return Reply(
            _play_on(first, parts),
            parts.aclose,
            lambda: self._close(play),
            id=f"scripted-{self.calls}",
            model="scripted",
            streamed=streamed,
        )

    async def availability(self, preset: ModelPreset) -> Availability:
        try:
            read_script(preset.model)
        except Unavailable as error:
            return Availability("unavailable", error.message)
        return Availability("available")

    def _close(self, play: _Play) -> None:
        if not play.closed:
            play.closed = True
            self.replies -= 1
            self.cancelled += not play.ended


async def _perform(steps: list[Step], asked: Message, play: _Play) -> AsyncGenerator[Part, None]:
    stop, usage, calls = Stop("end_turn"), Usage(None, None), 0
    for name, argument in steps:
        match name:
            case "pause":
                await asyncio.sleep(float(argument))
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "fail":
                play.ended = True
                raise _ERRORS[argument](f"The script says so: {argument}.")
            case "stop":
                stop = Stop(_REASONS[argument])
            case "usage":
                usage = Usage(*map(int, argument.split(",")))
            case "call" if not asked.results:
                for piece in _pieces(calls, argument):
                    yield piece
                stop, calls = Stop("tool_use"), calls + 1
            case _:
                for at, chunk in enumerate(_chunks(name, argument, asked), 1):
                    yield chunk
                    if at % BREATH == 0:
                        await asyncio.sleep(0)
    play.ended = True
    yield stop
    yield usage


def _pieces(index: int, argument: str) -> Iterable[ToolCallPiece]:
    """A call in three pieces, its arguments cut in the middle."""
    name, _, arguments = argument.partition(",")
    half = len(arguments) // 2
    yield ToolCallPiece(index, f"call_{index}", name, "")
    yield ToolCallPiece(index, "", "", arguments[:half])
    yield ToolCallPiece(index, "", "", arguments[half:])


def _chunks(name: str, argument: str, asked: Message) -> Iterable[Chunk]:
    match name:
        case "say":
            return _words(argument)
        case "echo":
            return _words(" ".join(filter(None, [*(result.text for result in asked.results), asked.text])))
        case "think":
            return [Reasoning(argument)]
        case "chunks":
            return (f"tok{number} " for number in range(int(argument)))
    return ()


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _joined(parts: list[Part]) -> list[Part]:
    """The same, the text in one piece."""
    text = "".join(part for part in parts if isinstance(part, str))
    others: list[Part] = [part for part in parts if not isinstance(part, str)]
    return [text, *others] if text else others


async def _play_on(first: Sequence[Part], rest: AsyncGenerator[Part, None]) -> AsyncGenerator[Sequence[Part], None]:
    yield first
    async for part in rest:
        yield [part]


def create(options: Mapping[str, Any], context: Context) -> Scripted:
    check(options, NoOptions)
    return Scripted()
