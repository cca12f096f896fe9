"""SageMaker's runtime with EMD's container behind it, and chat completions, which EMD's router sends as well."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from itertools import cycle
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.aws import errors, eventstream
from tests.aws.bedrock import as_error_response
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
from tests.upstream import RawPiece, raw_response

PATH = re.compile(r"/endpoints/(?P<target>[^/]+)/(?P<operation>invocations|invocations-response-stream)")
OPERATIONS = {"invocations": "InvokeEndpoint", "invocations-response-stream": "InvokeEndpointWithResponseStream"}
MAX_BODY_BYTES = 6_291_456
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "content_filtered": "content_filter",
}

StreamFault = asyncio.Event | Cut | StreamException | StreamError | BadChecksum


def match_path(path: str) -> tuple[str, str] | None:
    """The operation and the endpoint's name; None for other paths."""
    match = PATH.fullmatch(path)
    return match and (OPERATIONS[match["operation"]], unquote(match["target"]))


def reject(target: str, size: int, account: str, *, in_service: bool) -> ErrorResponse | None:
    """The error with which SageMaker rejects the request before the container; None if it is valid."""
    if size > MAX_BODY_BYTES:
        constraint = f"Member must have length less than or equal to {MAX_BODY_BYTES}"
        text = f"1 validation error detected: Value at 'body' failed to satisfy constraint: {constraint}"
        return ErrorResponse("ValidationError", text, 413)
    if not in_service:
        return ErrorResponse("ValidationError", f"Endpoint {target} of account {account} not found.")
    return None


async def respond(
    request: web.Request, operation: str, response: ScriptedResponse, model_id: str
) -> web.StreamResponse:
    if isinstance(response, TextResponse) and operation == "InvokeEndpoint":
        response = await resolve_gates(response)
    if isinstance(response, ErrorResponse):
        return errors.error_response(response, errors.REST)
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-Amzn-Invoked-Production-Variant": "AllTraffic"}
    if operation == "InvokeEndpoint":
        return await write_json(request, response, completion(response, model_id), headers)
    headers["X-Amzn-SageMaker-Content-Type"] = "application/json"
    headers["Content-Type"] = "application/vnd.amazon.eventstream"
    responder = raw_response(
        list(_payload_parts(response, model_id)),
        headers=headers,
        cut_at=response.cut_at,
        block_size=response.block_size,
    )
    return await responder(request)


async def resolve_gates(response: TextResponse) -> ScriptedResponse:
    """Wait for the events of a response that is not streamed; an exception in mid-stream becomes its error."""
    for piece in response.pieces:
        if isinstance(piece, asyncio.Event):
            await piece.wait()
        if isinstance(piece, StreamException | StreamError):
            return as_error_response(piece)
    return response


async def write_json(
    request: web.Request, response: TextResponse, body: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    cut = len(body) // 2 if response.index_of(Cut) is not None else response.cut_at
    lengths = {"Content-Length": str(len(body))}
    return await raw_response([body], headers=headers | lengths, cut_at=cut, block_size=response.block_size)(request)


def _payload_parts(response: TextResponse, model_id: str) -> Iterator[RawPiece]:
    """The event stream: the bytes of the body in PayloadParts of the scripted sizes."""
    sizes = cycle(response.part_sizes) if response.part_sizes else None
    size = next(sizes) if sizes else 0
    buffer = b""
    for piece in chat_stream(response, model_id, sse=bool(response.sse), done=bool(response.done)):
        if isinstance(piece, bytes):
            buffer += piece
            while buffer and (sizes is None or len(buffer) >= size):
                part, buffer = (buffer[:size], buffer[size:]) if sizes else (buffer, b"")
                size = next(sizes) if sizes else 0
                yield eventstream.encode_event("PayloadPart", part)
            continue
        if buffer:
            yield eventstream.encode_event("PayloadPart", buffer)
            buffer = b""
        if isinstance(piece, StreamException):
            yield eventstream.encode_exception(piece.member, {"Message": piece.message, **piece.fields})
        elif isinstance(piece, StreamError):
            yield eventstream.encode_error(piece.code, piece.message)
        elif isinstance(piece, BadChecksum):
            yield eventstream.encode_event("PayloadPart", b"damaged", damaged=True)
        else:
            yield piece
    if buffer:
        yield eventstream.encode_event("PayloadPart", buffer)


# --- chat completions ------------------------------------------------------------------------------


def completion(response: TextResponse, model_id: str) -> bytes:
    """The body of a response that is not streamed. Bytes in the script replace the whole body."""
    raw_body = b"".join(piece for piece in response.pieces if isinstance(piece, bytes))
    if raw_body:
        return raw_body
    message: dict[str, Any] = {"role": "assistant", "content": response.text}
    if response.reasoning:
        message["reasoning_content"] = response.reasoning
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(response)}
    payload: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model_id,
    }
    payload |= {"choices": [choice], "usage": _chat_usage(response)}
    return json.dumps(next((piece for piece in response.pieces if isinstance(piece, dict)), payload)).encode()


def chat_stream(response: TextResponse, model_id: str, *, sse: bool, done: bool) -> Iterator[bytes | StreamFault]:
    """The lines of the stream, with its events, cuts and errors in between; none after an error."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model_id}

    def line(chunk: dict[str, Any]) -> bytes:
        encoded = json.dumps(chunk).encode()
        return b"data: " + encoded + b"\n\n" if sse else encoded + b"\n"

    def delta(fields: dict[str, Any], finish: str | None = None) -> bytes:
        return line({**head, "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})

    for piece in response.pieces:
        if isinstance(piece, str):
            yield delta({"content": piece})
        elif isinstance(piece, ReasoningText):
            yield delta({"reasoning_content": piece.text})
        elif isinstance(piece, ToolUse):
            function = {"name": piece.name, "arguments": json.dumps(piece.input)}
            yield delta({"tool_calls": [{"index": 0, "id": piece.id, "type": "function", "function": function}]})
        elif isinstance(piece, dict):
            yield line(piece)
        else:
            yield piece
        if isinstance(piece, StreamException | StreamError):
            return
    if response.stop_reason is not None:
        yield delta({}, _finish_reason(response))
    if response.usage is not None and (done or not sse):
        yield line({**head, "choices": [], "usage": _chat_usage(response)})
    if done:
        yield b"data: [DONE]\n\n" if sse else b"[DONE]\n"


def _finish_reason(response: TextResponse) -> str | None:
    return FINISH_REASONS.get(response.stop_reason, response.stop_reason) if response.stop_reason is not None else None


def _chat_usage(response: TextResponse) -> dict[str, Any]:
    usage = response.usage or {}
    prompt, out = usage.get("inputTokens", 0), usage.get("outputTokens", 0)
    counted: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out}
    if "cacheReadInputTokens" in usage:
        counted["prompt_tokens_details"] = {"cached_tokens": usage["cacheReadInputTokens"]}
    return counted
