"""The bytes of an OpenAI-compatible `/chat/completions` answer, cut anywhere, turned into a reply's parts.

No provider of its own: whoever brings bytes (HTTP, SageMaker's payload parts) reads them here. Accepted are
SSE (`data: {...}`), bare JSON lines and one whole JSON object, with or without `[DONE]`. EMD's SageMaker
endpoints send bare lines without `[DONE]`; its router ends without `[DONE]` once there is a finish_reason.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from pipeline.errors import ForgelineError, ModelError
from pipeline.messages import Chunk, Part, Reasoning, Stop, StopReason, ToolCallPiece, Usage
from pipeline.providers.chat_errors import error_in_stream

Read = Callable[[], Awaitable[bytes]]
"""Gives the next bytes of an answer, b"" at its end; raises ModelError where the connection breaks."""

MAX_LINE: Final = 8 * 1024 * 1024  # bytes of one line, or of one whole answer that did not come in pieces


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    index: int | None = None  # not there where the answer comes whole
    id: str | None = None
    function: _Function | None = None


class _Text(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct, gc=False):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM: the stop string, or the id of the token, that ended it
    matched_stop: Any = None  # SGLang's name for it


class _Usage(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Line(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None  # "error" where older vLLMs put the error at the top
    message: Any = None
    code: Any = None
    type: Any = None


_decode = msgspec.json.Decoder(_Line).decode
_IGNORED: Final = (b"\r", b":", b"event:", b"id:", b"retry:")  # all of SSE that is no data
_REASONS: Final[dict[str, StopReason]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filter",
}


class AnswerReader:
    """Turns the bytes of one answer, cut anywhere, into chunks; afterwards says how it ended.

    `stops` are the request's stop strings. `whole_json` allows one JSON object over several lines.
    `secret` is struck out of every message of the upstream. `id` and `model` are the upstream's own,
    `streamed` is False if the text came whole, `finished` is set by a finish_reason, and `done` when no more
    need be read.
    """

    def __init__(self, *, stops: Collection[str] = (), whole_json: bool = False, secret: str = "") -> None:
        self.id = ""
        self.model = ""
        self.usage = Usage(None, None)
        self.streamed = True
        self.finished: StopReason | None = None
        self.done = False
        self._stops = stops
        self._secret = secret
        self._may_be_whole = whole_json  # until a first line tells
        self._whole = False
        self._rest = bytearray()

    def feed(self, block: bytes) -> Iterator[Sequence[Part]]:
        """The chunks that this block completes, as one batch at most. Exhaust it before feeding the next.

        Raises ModelError for what can't be read, and what `chat_errors` makes of an upstream's error, after
        the chunks that came before it.
        """
        chunks: list[Part] = []
        try:
            for line in filter(None, self._lines(block)):
                choice = self._parse(line)
                if choice is not None:
                    chunks += self._text(choice)
                if self.done:
                    break
        except ForgelineError:
            if chunks:
                yield chunks
            raise
        if chunks:
            yield chunks

    def end(self) -> Iterator[Sequence[Part]]:
        """What a last line without a newline holds. Raises ModelError where the answer is not whole."""
        line, self._rest = bytes(self._rest), bytearray()
        self._whole = self._may_be_whole = False
        try:
            choice = self._parse(line)
        except ModelError:
            if self.finished is None:
                raise
            choice = None  # the text is whole; what was cut is the usage
        if choice is not None and (chunks := self._text(choice)):
            yield chunks
        if self.finished is None and not self.done:
            raise ModelError("The model's answer broke off: it ended without a finish reason.")
        self.done = True

    def ending(self) -> tuple[Stop, Usage]:
        """Why it stopped (`[DONE]` without a finish_reason is `other`), and the tokens, None where not told."""
        return Stop(self.finished or "other"), self.usage

    def _lines(self, block: bytes) -> list[bytes]:
        if self._whole or b"\n" not in block:
            self._rest += block
            lines = []
        else:
            lines = block.split(b"\n")
            if self._rest:
                lines[0] = bytes(self._rest) + lines[0]
            self._rest = bytearray(lines.pop())
            if self._may_be_whole:
                lines = self._look(lines)
        if len(self._rest) > MAX_LINE:
            raise ModelError(f"The model's server sent a line of more than {MAX_LINE} bytes.")
        return lines

    def _look(self, lines: list[bytes]) -> list[bytes]:
        """The lines, if the first that says anything is JSON by itself; else keeps all for `end`."""
        for at, line in enumerate(lines):
            if line.strip():
                self._may_be_whole = False
                try:
                    msgspec.json.decode(line)
                except (ValueError, RecursionError):
                    self._whole = line.startswith(b"{")
                if self._whole:
                    self._rest[:0] = b"\n".join([*lines[at:], b""])
                    return []
                break
        return lines

    def _parse(self, line: bytes) -> _Choice | None:
        if line.startswith(b"data:"):
            line = line[5:]
        elif not line or line.startswith(_IGNORED):
            return None
        try:
            parsed = _decode(line)
        except (ValueError, RecursionError) as error:
            word = line.strip()
            self.done = word == b"[DONE]"
            if self.done or not word:
                return None
            raise ModelError("The model's server sent a line that is not a chunk of a chat completion.") from error
        if parsed.error or parsed.object == "error":
            raise error_in_stream(parsed.error or msgspec.to_builtins(parsed), self._secret)
        if parsed.usage is not None:
            self.usage = Usage(parsed.usage.prompt_tokens, parsed.usage.completion_tokens)
        if not self.id and parsed.id:
            self.id, self.model = parsed.id, parsed.model or ""
        return parsed.choices[0] if parsed.choices else None

    def _text(self, choice: _Choice) -> Sequence[Chunk]:
        if choice.message is not None:
            self.streamed = False
        if choice.finish_reason or not self.streamed:
            self._finish(choice)
        text = choice.message or choice.delta
        if text is None:
            return ()
        if text.tool_calls:
            return [*([text.content] if text.content else []), *_pieces(text.tool_calls)]
        thought = text.reasoning or text.reasoning_content  # vLLM sends both while it renames one
        if thought:
            return (Reasoning(thought), text.content) if text.content else (Reasoning(thought),)
        return (text.content,) if text.content else ()

    def _finish(self, choice: _Choice) -> None:
        if choice.finish_reason in {"error", "abort"}:  # OpenRouter; vLLM and SGLang
            raise ModelError("The model broke its answer off.")
        self.finished = _REASONS.get(choice.finish_reason or "", "other")
        if self.finished == "end_turn" and (choice.stop_reason or choice.matched_stop) in self._stops:
            self.finished = "stop_sequence"


def _pieces(calls: list[_Call]) -> Iterator[ToolCallPiece]:
    for at, call in enumerate(calls):
        function = call.function or _Function()
        index = at if call.index is None else call.index
        yield ToolCallPiece(index, call.id or "", function.name or "", function.arguments or "")


async def begin_answer(read: Read, reader: AnswerReader) -> AsyncGenerator[Sequence[Part], None]:
    """Reads up to the first chunk (or the end), and returns all parts, that chunk included; Stop and Usage last."""
    first: Sequence[Part] = ()
    batches: Iterator[Sequence[Part]] = iter(())
    while not first and not reader.done:
        batches = await _next(read, reader)
        first = next(batches, ())
    return _batches(read, reader, first, batches)


async def _batches(
    read: Read, reader: AnswerReader, first: Sequence[Part], others: Iterator[Sequence[Part]]
) -> AsyncGenerator[Sequence[Part], None]:
    if reader.done:  # all of it came at once
        yield [*first, *reader.ending()]
        return
    yield first
    for batch in others:
        yield batch
    while not reader.done:
        for batch in await _next(read, reader):
            yield batch
    yield reader.ending()


async def _next(read: Read, reader: AnswerReader) -> Iterator[Sequence[Part]]:
    try:
        block = await read()
    except ModelError:
        if reader.finished is None:
            raise
        return reader.end()  # the connection broke after the last of the text
    return reader.feed(block) if block else reader.end()
