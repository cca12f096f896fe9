"""scripted: responses that are written in the preset itself, for tests and demos; without a model or a network.

The preset's `model` is the script: steps, separated by `;`, played in order.

    model: "pause:0.5; say:Hello there, world; usage:3,4"

    say:TEXT        one chunk per word, spaces kept
    echo            the same with the text of the last message, results of tools before it
    think:TEXT      one chunk of reasoning
    chunks:N        N chunks: "tok0 ", "tok1 ", ...
    pause:SECONDS   waits
    hang            never goes on, until it is cancelled
    fail:CODE       raises the error with this code (rate_limited, model_error, unavailable, ...)
    call:NAME,ARGS  calls a tool with these arguments (JSON), unless the last message holds a tool's result
    usage:IN,OUT    the tokens that are reported; none otherwise
    stop:REASON     the stop reason; end_turn otherwise
    unstreamed      the response comes whole
    perhaps:P,STEP  plays STEP with the probability P

As with every provider, a failure before the first chunk is an exception out of `open`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from pipeline.envelope import StopReason
from pipeline.errors import (
    Cancelled,
    ForgelineError,
    InvalidRequest,
    ModelError,
    ModelNotDeployed,
    RateLimited,
    Unavailable,
    UnknownModel,
    before_upstream_call,
)
from pipeline.messages import (
    Chunk,
    Finish,
    Inference,
    Message,
    ModelResponse,
    ModelTarget,
    Reasoning,
    ResponsePart,
    ToolCallDelta,
    Usage,
)
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import NoOptions
from pipeline.stage import Availability, Context

Step = tuple[str, str]
"""The name of a step and its argument."""

YIELD_EVERY_CHUNKS: Final = 64  # then other tasks run, as they do between the packets of a real response

_ERRORS_BY_CODE: Final[dict[str, type[ForgelineError]]] = {
    error.code: error
    for error in (InvalidRequest, UnknownModel, RateLimited, ModelError, ModelNotDeployed, Unavailable, Cancelled)
}
_STOP_REASONS: Final[dict[str, StopReason]] = {reason: reason for reason in get_args(StopReason)}
_ARGUMENT_PATTERNS: Final = {
    "say": r".+",
    "echo": "",
    "think": r".+",
    "chunks": r"\d{1,9}",
    "pause": r"\d{1,6}(\.\d+)?",
    "hang": "",
    "call": r"[^,]+,.+",
    "fail": "|".join(_ERRORS_BY_CODE),
    "usage": r"\d{1,9},\d{1,9}",
    "stop": "|".join(_STOP_REASONS),
    "unstreamed": "",
    "perhaps": r"(0|1|0?\.\d+),.+",
}


def parse_script(script: str) -> list[Step]:
    """Parse the steps. Raises Unavailable that names the step which can't be played."""
    return [_parse_step(step) for step in filter(None, map(str.strip, script.split(";")))]


def _parse_step(step: str) -> Step:
    name, _, argument = step.partition(":")
    pattern = _ARGUMENT_PATTERNS.get(name)
    if pattern is None:
        known = ", ".join(_ARGUMENT_PATTERNS)
        raise Unavailable(f"The script in this preset's model has a step {step!r}; there are {known}.")
    if not re.fullmatch(pattern, argument, re.DOTALL):
        raise Unavailable(f"The script in this preset's model has a step {step!r} that can't be played.")
    if name == "perhaps":
        _parse_step(argument.partition(",")[2])
    return name, argument


def _resolve_random_steps(steps: list[Step]) -> Iterator[Step]:
    """The steps to play this time: those of `perhaps` are drawn."""
    for name, argument in steps:
        if name != "perhaps":
            yield name, argument
            continue
        probability, _, step = argument.partition(",")
        if random.random() < float(probability):  # noqa: S311 - no secret
            yield from _resolve_random_steps([_parse_step(step)])


@dataclass
class _Playback:
    """The state of one response."""

    has_ended: bool = False
    is_closed: bool = False


class ScriptedProvider:
    """Counts for tests: `calls` of `open`, `open_responses` now, `cancelled` ones that were closed before their end."""

    Options = NoOptions
    supported_features = frozenset({"tools"})

    def __init__(self, options: NoOptions, context: Context) -> None:
        self.calls = 0
        self.open_responses = 0
        self.cancelled = 0

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Play the script up to its first chunk. Raises Unavailable for a script that can't be played."""
        self.calls += 1
        with before_upstream_call():
            steps = list(_resolve_random_steps(parse_script(target.preset.model)))
        playback = _Playback()
        streamed = ("unstreamed", "") not in steps
        parts = _play(steps, inference.messages[-1], playback)
        try:
            first = [await anext(parts)] if streamed else _merge_text([part async for part in parts])
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.open_responses += 1
        return ModelResponse(
            _batches(first, parts),
            parts.aclose,
            lambda: self._close_response(playback),
            id=f"scripted-{self.calls}",
            model="scripted",
            streamed=streamed,
        )

    async def availability(self, preset: ModelPreset) -> Availability:
        """Whether the script can be played."""
        try:
            parse_script(preset.model)
        except Unavailable as error:
            return Availability("unavailable", error.message)
        return Availability("available")

    def _close_response(self, playback: _Playback) -> None:
        if not playback.is_closed:
            playback.is_closed = True
            self.open_responses -= 1
            self.cancelled += not playback.has_ended


async def _play(steps: list[Step], last_message: Message, playback: _Playback) -> AsyncGenerator[ResponsePart, None]:
    finish, usage, calls = Finish("end_turn"), Usage(None, None), 0
    for name, argument in steps:
        match name:
            case "pause":
                await asyncio.sleep(float(argument))
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "fail":
                playback.has_ended = True
                raise _ERRORS_BY_CODE[argument](f"The script says so: {argument}.")
            case "stop":
                finish = Finish(_STOP_REASONS[argument])
            case "usage":
                usage = Usage(*map(int, argument.split(",")))
            case "call" if not last_message.tool_results:
                for delta in _tool_call_deltas(calls, argument):
                    yield delta
                finish, calls = Finish("tool_use"), calls + 1
            case _:
                for count, chunk in enumerate(_chunks(name, argument, last_message), 1):
                    yield chunk
                    if count % YIELD_EVERY_CHUNKS == 0:
                        await asyncio.sleep(0)
    playback.has_ended = True
    yield finish
    yield usage


def _tool_call_deltas(index: int, argument: str) -> Iterable[ToolCallDelta]:
    """A call in three deltas, its arguments cut in the middle."""
    name, _, arguments = argument.partition(",")
    half = len(arguments) // 2
    yield ToolCallDelta(index, f"call_{index}", name, "")
    yield ToolCallDelta(index, "", "", arguments[:half])
    yield ToolCallDelta(index, "", "", arguments[half:])


def _chunks(name: str, argument: str, last_message: Message) -> Iterable[Chunk]:
    match name:
        case "say":
            return _words(argument)
        case "echo":
            texts = [*(result.text for result in last_message.tool_results), last_message.text]
            return _words(" ".join(filter(None, texts)))
        case "think":
            return [Reasoning(argument)]
        case "chunks":
            return (f"tok{number} " for number in range(int(argument)))
    return ()


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _merge_text(parts: list[ResponsePart]) -> list[ResponsePart]:
    """The same parts, with all text in one chunk before the others."""
    text = "".join(part for part in parts if isinstance(part, str))
    others: list[ResponsePart] = [part for part in parts if not isinstance(part, str)]
    return [text, *others] if text else others


async def _batches(
    first: Sequence[ResponsePart], rest: AsyncGenerator[ResponsePart, None]
) -> AsyncGenerator[Sequence[ResponsePart], None]:
    yield first
    async for part in rest:
        yield [part]
