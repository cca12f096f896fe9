"""Converse and ConverseStream: a scripted response as Bedrock sends it."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.aws import bedrock_validation, errors, eventstream
from tests.aws.bedrock_models import BedrockModel, find_model
from tests.aws.scripted_responses import (
    BadChecksum,
    Cut,
    ErrorResponse,
    ReasoningText,
    ScriptedResponse,
    StreamError,
    StreamException,
    TextResponse,
    ToolUse,
)
from tests.upstream import RawPiece, Responder, raw_response

PATH = re.compile(r"/model/(?P<target>[^/]+)/(?P<operation>converse|converse-stream)")
OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream"}
METRICS = {"latencyMs": 120}
END_OF_LIFE = (
    "This model version has reached the end of its life. Please refer to the AWS documentation for more details."
)


def match_path(path: str) -> tuple[str, str] | None:
    """The operation and the model id; None for other paths."""
    match = PATH.fullmatch(path)
    return match and (OPERATIONS[match["operation"]], unquote(match["target"]))


def reject(operation: str, target: str, body: Any, models: dict[str, BedrockModel]) -> ErrorResponse | None:
    """The error with which Bedrock rejects the request before the model; None if it is valid."""
    model = find_model(models, target)
    if isinstance(model, str):
        return ErrorResponse("ValidationException", model)
    if model.is_retired:
        return ErrorResponse("ResourceNotFoundException", END_OF_LIFE)
    fault = bedrock_validation.find_fault(operation, body, model)
    return ErrorResponse("ValidationException", fault) if fault else None


async def respond(request: web.Request, operation: str, response: ScriptedResponse) -> web.StreamResponse:
    if isinstance(response, ErrorResponse):
        return errors.error_response(response, errors.REST)
    responder = _converse_stream_response(response) if operation == "ConverseStream" else _converse_response(response)
    return await responder(request)


def _converse_response(response: TextResponse) -> Responder:
    gates = [piece for piece in response.pieces if isinstance(piece, asyncio.Event)]
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    for piece in response.pieces:
        if isinstance(piece, StreamException | StreamError):
            return _failing_response(gates, as_error_response(piece))
    content: list[dict[str, Any]] = [{"text": response.text}]
    tool_uses = [piece for piece in response.pieces if isinstance(piece, ToolUse)]
    content += [{"toolUse": {"toolUseId": tool.id, "name": tool.name, "input": tool.input}} for tool in tool_uses]
    if response.reasoning:
        content.insert(0, {"reasoningContent": {"reasoningText": {"text": response.reasoning, "signature": "c2ln"}}})
    payload = {"output": {"message": {"role": "assistant", "content": content}}, "metrics": METRICS}
    payload |= {"stopReason": response.stop_reason or "end_turn", "usage": with_total(response.usage or {})}
    body = json.dumps(payload).encode()
    cut = len(body) // 2 if response.index_of(Cut) is not None else response.cut_at
    return raw_response(
        [*gates, body],
        headers={**headers, "Content-Length": str(len(body))},
        cut_at=cut,
        block_size=response.block_size,
    )


def as_error_response(piece: StreamException | StreamError) -> ErrorResponse:
    """The error of a call that does not stream, for what is an exception in mid-stream otherwise."""
    if isinstance(piece, StreamError):
        return ErrorResponse(piece.code, piece.message, 500)
    return ErrorResponse(piece.member[0].upper() + piece.member[1:], piece.message, fields=piece.fields)


def _failing_response(gates: list[asyncio.Event], error: ErrorResponse) -> Responder:
    async def write(request: web.Request) -> web.StreamResponse:
        for event in gates:
            await event.wait()
        return errors.error_response(error, errors.REST)

    return write


def _converse_stream_response(response: TextResponse) -> Responder:
    headers = {
        "Content-Type": "application/vnd.amazon.eventstream",
        "X-Amzn-Bedrock-Content-Type": "application/json",
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
    return raw_response(
        list(event_messages(response)), headers=headers, cut_at=response.cut_at, block_size=response.block_size
    )


def event_messages(response: TextResponse) -> Iterator[RawPiece]:
    """The messages of the stream, with its events and cuts in between."""
    has_started = any(isinstance(piece, dict) and "messageStart" in piece for piece in response.pieces)
    blocks: list[int] = []  # the last is open; a new kind of delta starts the next block
    kind = ""
    for piece in response.pieces:
        if isinstance(piece, str | ReasoningText | BadChecksum | StreamError | StreamException) and not has_started:
            has_started = True
            yield eventstream.encode_event("messageStart", {"role": "assistant"})
        if isinstance(piece, str | ReasoningText):
            if blocks and kind != type(piece).__name__:
                yield eventstream.encode_event("contentBlockStop", {"contentBlockIndex": blocks[-1]})
                blocks.append(len(blocks))
            blocks, kind = blocks or [0], type(piece).__name__
            delta: dict[str, Any] = (
                {"text": piece} if isinstance(piece, str) else {"reasoningContent": {"text": piece.text}}
            )
            yield eventstream.encode_event("contentBlockDelta", {"delta": delta, "contentBlockIndex": blocks[-1]})
        elif isinstance(piece, ToolUse):
            number = blocks[-1] + 1 if blocks else 0
            if blocks:
                yield eventstream.encode_event("contentBlockStop", {"contentBlockIndex": blocks[-1]})
            yield from _tool_use_messages(piece, number)
            blocks, kind = [*blocks, number], ""
        elif isinstance(piece, dict):
            yield from (eventstream.encode_event(name, payload) for name, payload in piece.items())
        elif isinstance(piece, StreamException):
            yield eventstream.encode_exception(piece.member, {"message": piece.message, **piece.fields})
            return
        elif isinstance(piece, StreamError):
            yield eventstream.encode_error(piece.code, piece.message)
            return
        elif isinstance(piece, BadChecksum):
            damaged = {"delta": {"text": "damaged"}, "contentBlockIndex": 0}
            yield eventstream.encode_event("contentBlockDelta", damaged, damaged=True)
        else:
            yield piece
    yield from _closing_messages(response, has_started=has_started, blocks=blocks)


def _tool_use_messages(tool_use: ToolUse, block_index: int) -> Iterator[bytes]:
    """A block with the arguments in two pieces, neither of them valid JSON. The caller ends the block."""
    block = {"contentBlockIndex": block_index}
    start = {"toolUse": {"toolUseId": tool_use.id, "name": tool_use.name}}
    yield eventstream.encode_event("contentBlockStart", {"start": start, **block})
    arguments = json.dumps(tool_use.input)
    for piece in (arguments[:1], arguments[1:]):
        yield eventstream.encode_event("contentBlockDelta", {"delta": {"toolUse": {"input": piece}}, **block})


def _closing_messages(response: TextResponse, *, has_started: bool, blocks: list[int]) -> Iterator[bytes]:
    if not has_started:
        yield eventstream.encode_event("messageStart", {"role": "assistant"})
    if blocks:
        yield eventstream.encode_event("contentBlockStop", {"contentBlockIndex": blocks[-1]})
    if response.stop_reason is not None:
        yield eventstream.encode_event("messageStop", {"stopReason": response.stop_reason})
    if response.usage is not None:
        yield eventstream.encode_event("metadata", {"usage": with_total(response.usage), "metrics": METRICS})


def with_total(usage: Mapping[str, int]) -> dict[str, int]:
    """The usage with its total, which includes the tokens of the cache."""
    counted = {"inputTokens": 0, "outputTokens": 0, **usage}
    return {**counted, "totalTokens": sum(counted.values())}
