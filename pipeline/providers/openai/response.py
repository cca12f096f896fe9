"""Parser of an OpenAI-compatible `/chat/completions` response, whose bytes may be cut anywhere.

The bytes come from HTTP or from SageMaker's payload parts. Accepted are SSE (`data: {...}`), bare JSON lines and one
whole JSON object, with or without `[DONE]`. EMD's SageMaker endpoints send bare lines without `[DONE]`; its router
sends no `[DONE]` after a finish_reason.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from pipeline.envelope import StopReason
from pipeline.errors import ForgelineError, ModelError
from pipeline.messages import Chunk, Finish, Reasoning, ResponsePart, ToolCallDelta, Usage
from pipeline.providers.openai.errors import error_from_chunk

ReadBytes = Callable[[], Awaitable[bytes]]
"""Returns the next bytes of a response, b"" at its end; raises ModelError if the connection is lost."""

MAX_LINE_BYTES: Final = 8 * 1024 * 1024  # of one line, or of a response that is one JSON object


class _FunctionFields(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCallFields(Struct, gc=False):
    index: int | None = None  # absent in a response that is not streamed
    id: str | None = None
    function: _FunctionFields | None = None


class _MessageFields(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCallFields] | None = None


class _ChoiceFields(Struct, gc=False):
    delta: _MessageFields | None = None
    message: _MessageFields | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM: the stop string, or the token id, that ended the text
    matched_stop: Any = None  # SGLang's name for `stop_reason`


class _UsageFields(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _ChunkFields(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_ChoiceFields] | None = None
    usage: _UsageFields | None = None
    error: Any = None
    object: str | None = None  # "error" if the fields of the error are at the top level, as in older vLLM
    message: Any = None
    code: Any = None
    type: Any = None


_decode = msgspec.json.Decoder(_ChunkFields).decode
_IGNORED_PREFIXES: Final = (b"\r", b":", b"event:", b"id:", b"retry:")  # the lines of SSE that are not data
_STOP_REASONS: Final[dict[str, StopReason]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filter",
}


class ChatResponseParser:
    """Parses the bytes of one response, cut anywhere, into chunks; afterwards says how the response ended.

    `stop_sequences` are the request's. `may_be_json` allows one JSON object over several lines. `secret` is removed
    from every message of the upstream. `id` and `model` are the upstream's own; `streamed` is False if the text came
    whole; `finish_reason` is set by the upstream's finish_reason; `done` is True when no more has to be read.
    """

    def __init__(self, *, stop_sequences: Collection[str] = (), may_be_json: bool = False, secret: str = "") -> None:
        self.id = ""
        self.model = ""
        self.usage = Usage(None, None)
        self.streamed = True
        self.finish_reason: StopReason | None = None
        self.done = False
        self._stop_sequences = stop_sequences
        self._secret = secret
        self._may_be_json = may_be_json  # until the first line decides
        self._is_json = False
        self._buffer = bytearray()

    def feed(self, block: bytes) -> Iterator[Sequence[ResponsePart]]:
        """The chunks that this block completes, as one batch at most. Exhaust it before feeding the next block.

        Raises ModelError for what can't be parsed, and the errors of `openai.errors` for an upstream's error, after
        the chunks before it.
        """
        chunks: list[ResponsePart] = []
        try:
            for line in filter(None, self._split_lines(block)):
                choice = self._parse_line(line)
                if choice is not None:
                    chunks += self._read_choice(choice)
                if self.done:
                    break
        except ForgelineError:
            if chunks:
                yield chunks
            raise
        if chunks:
            yield chunks

    def finish(self) -> Iterator[Sequence[ResponsePart]]:
        """Parse a last line without a newline. Raises ModelError if the response is incomplete."""
        line, self._buffer = bytes(self._buffer), bytearray()
        self._is_json = self._may_be_json = False
        try:
            choice = self._parse_line(line)
        except ModelError:
            if self.finish_reason is None:
                raise
            choice = None  # the text is complete; the usage is lost
        if choice is not None and (chunks := self._read_choice(choice)):
            yield chunks
        if self.finish_reason is None and not self.done:
            raise ModelError("The model's answer broke off: it ended without a finish reason.")
        self.done = True

    def final_parts(self) -> tuple[Finish, Usage]:
        """Why the model stopped (`other` for `[DONE]` without a finish_reason), and the tokens, None if unknown."""
        return Finish(self.finish_reason or "other"), self.usage

    def _split_lines(self, block: bytes) -> list[bytes]:
        if self._is_json or b"\n" not in block:
            self._buffer += block
            lines = []
        else:
            lines = block.split(b"\n")
            if self._buffer:
                lines[0] = bytes(self._buffer) + lines[0]
            self._buffer = bytearray(lines.pop())
            if self._may_be_json:
                lines = self._detect_json(lines)
        if len(self._buffer) > MAX_LINE_BYTES:
            raise ModelError(f"The model's server sent a line of more than {MAX_LINE_BYTES} bytes.")
        return lines

    def _detect_json(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines if the first that is not blank is JSON by itself; otherwise keep all for `finish`."""
        for index, line in enumerate(lines):
            if line.strip():
                self._may_be_json = False
                try:
                    msgspec.json.decode(line)
                except (ValueError, RecursionError):
                    self._is_json = line.startswith(b"{")
                if self._is_json:
                    self._buffer[:0] = b"\n".join([*lines[index:], b""])
                    return []
                break
        return lines

    def _parse_line(self, line: bytes) -> _ChoiceFields | None:
        if line.startswith(b"data:"):
            line = line[5:]
        elif not line or line.startswith(_IGNORED_PREFIXES):
            return None
        try:
            chunk = _decode(line)
        except (ValueError, RecursionError) as error:
            stripped = line.strip()
            self.done = stripped == b"[DONE]"
            if self.done or not stripped:
                return None
            raise ModelError("The model's server sent a line that is not a chunk of a chat completion.") from error
        if chunk.error or chunk.object == "error":
            raise error_from_chunk(chunk.error or msgspec.to_builtins(chunk), self._secret)
        if chunk.usage is not None:
            self.usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if not self.id and chunk.id:
            self.id, self.model = chunk.id, chunk.model or ""
        return chunk.choices[0] if chunk.choices else None

    def _read_choice(self, choice: _ChoiceFields) -> Sequence[Chunk]:
        if choice.message is not None:
            self.streamed = False
        if choice.finish_reason or not self.streamed:
            self._set_finish_reason(choice)
        message = choice.message or choice.delta
        if message is None:
            return ()
        if message.tool_calls:
            return [*([message.content] if message.content else []), *_tool_call_deltas(message.tool_calls)]
        reasoning = message.reasoning or message.reasoning_content  # vLLM sends both while it renames one
        if reasoning:
            return (Reasoning(reasoning), message.content) if message.content else (Reasoning(reasoning),)
        return (message.content,) if message.content else ()

    def _set_finish_reason(self, choice: _ChoiceFields) -> None:
        if choice.finish_reason in {"error", "abort"}:  # OpenRouter; vLLM and SGLang
            raise ModelError("The model broke its answer off.")
        self.finish_reason = _STOP_REASONS.get(choice.finish_reason or "", "other")
        stop_sequence = choice.stop_reason or choice.matched_stop
        if self.finish_reason == "end_turn" and stop_sequence in self._stop_sequences:
            self.finish_reason = "stop_sequence"


def _tool_call_deltas(calls: list[_ToolCallFields]) -> Iterator[ToolCallDelta]:
    for position, call in enumerate(calls):
        function = call.function or _FunctionFields()
        index = position if call.index is None else call.index
        yield ToolCallDelta(index, call.id or "", function.name or "", function.arguments or "")


async def read_chat_response(
    read: ReadBytes, parser: ChatResponseParser
) -> AsyncGenerator[Sequence[ResponsePart], None]:
    """Read up to the first chunk (or the end), and return the batches of the whole response; Finish and Usage last."""
    first: Sequence[ResponsePart] = ()
    rest: Iterator[Sequence[ResponsePart]] = iter(())
    while not first and not parser.done:
        rest = await _read_batches(read, parser)
        first = next(rest, ())
    return _all_batches(read, parser, first, rest)


async def _all_batches(
    read: ReadBytes, parser: ChatResponseParser, first: Sequence[ResponsePart], rest: Iterator[Sequence[ResponsePart]]
) -> AsyncGenerator[Sequence[ResponsePart], None]:
    if parser.done:  # the whole response came at once
        yield [*first, *parser.final_parts()]
        return
    yield first
    for batch in rest:
        yield batch
    while not parser.done:
        for batch in await _read_batches(read, parser):
            yield batch
    yield parser.final_parts()


async def _read_batches(read: ReadBytes, parser: ChatResponseParser) -> Iterator[Sequence[ResponsePart]]:
    try:
        block = await read()
    except ModelError:
        if parser.finish_reason is None:
            raise
        return parser.finish()  # the connection was lost after the last of the text
    return parser.feed(block) if block else parser.finish()
