"""Canned responses of the mock upstream as bytes: OpenAI's chat completions, and Bedrock's ConverseStream."""

from __future__ import annotations

import functools
import json
import struct
import zlib
from typing import Any

RESPONSE_TEXT = "The answer of the mock upstream"
WORDS = (" the", " of", " cluster", " node", " token", " GPU", " and", " ready", ", then", " über", " model", ".\n")
WRITE_SIZE = 64 * 1024
STACK_NOT_FOUND_XML = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code>"
    "<Message>Stack with id bench does not exist</Message></Error></ErrorResponse>"
)


def response_head(headers: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nServer: mock\r\n{headers}\r\n\r\n".encode()


def response(body: str, content_type: str = "application/json", status: str = "200 OK") -> bytes:
    data = body.encode()
    return response_head(f"Content-Type: {content_type}\r\nContent-Length: {len(data)}", status) + data


def _plain_body() -> str:
    message = {"role": "assistant", "content": RESPONSE_TEXT + "".join(WORDS) * 5}
    return json.dumps(
        {
            "id": "chatcmpl-bench0123456789abcdef",
            "object": "chat.completion",
            "created": 1760000000,
            "model": "plain",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 64, "total_tokens": 264},
            "system_fingerprint": "fp_bench",
        }
    )


PLAIN_RESPONSE = response(_plain_body())
EMPTY_LIST = response('{"object":"list","data":[]}')
# For CloudFormation, which jobs may call.
STACK_NOT_FOUND = response(STACK_NOT_FOUND_XML, "text/xml", "400 Bad Request")
LENGTH_REQUIRED = response_head("Content-Length: 0\r\nConnection: close", "411 Length Required")


def http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def sse_chunk(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    """One chunk object as an SSE event in its own HTTP chunk, as real servers send it."""
    chunk = {
        "id": "chatcmpl-bench0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return http_chunk(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def token_chunk(model: str, text: str) -> bytes:
    return sse_chunk(model, [{"index": 0, "delta": {"content": text}, "finish_reason": None}])


SSE_HEAD = response_head("Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked")


def unfinished_stream(model: str, chunks: int) -> list[bytes]:
    """A stream without its end, in pieces: one for each token, the first one after the response head."""
    first = {"role": "assistant", "content": WORDS[0]}
    pieces = [SSE_HEAD + sse_chunk(model, [{"index": 0, "delta": first, "finish_reason": None}])]
    return pieces + [token_chunk(model, WORDS[number % len(WORDS)]) for number in range(1, chunks)]


@functools.cache
def sse_stream(model: str, chunks: int) -> tuple[bytes, ...]:
    """A whole stream in pieces: one for each token, the last one with the end of the stream."""
    pieces = unfinished_stream(model, chunks)
    usage = {"prompt_tokens": 200, "completion_tokens": chunks, "total_tokens": 200 + chunks}
    pieces[-1] += sse_chunk(model, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    pieces[-1] += sse_chunk(model, [], usage) + http_chunk(b"data: [DONE]\n\n") + http_chunk(b"")
    return tuple(pieces)


def aws_event(event_type: str, payload: dict[str, Any]) -> bytes:
    """One message of an AWS event stream in its own HTTP chunk: prelude, headers and payload, with CRCs."""
    headers = {":event-type": event_type, ":content-type": "application/json", ":message-type": "event"}
    encoded_headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    body = json.dumps(payload, separators=(",", ":")).encode()
    lengths = struct.pack(">II", len(encoded_headers) + len(body) + 16, len(encoded_headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + encoded_headers + body
    return http_chunk(message + struct.pack(">I", zlib.crc32(message)))


@functools.cache
def converse_stream(chunks: int) -> tuple[bytes, ...]:
    """A whole ConverseStream response in pieces, like those of `sse_stream`."""
    words = (WORDS[number % len(WORDS)] for number in range(chunks))
    pieces = [aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in words]
    headers = "Content-Type: application/vnd.amazon.eventstream\r\nX-Amzn-Bedrock-Content-Type: application/json"
    head = response_head(f"{headers}\r\nx-amzn-RequestId: bench\r\nTransfer-Encoding: chunked")
    pieces[0] = head + aws_event("messageStart", {"role": "assistant"}) + pieces[0]
    usage = {"inputTokens": 200, "outputTokens": chunks, "totalTokens": 200 + chunks}
    pieces[-1] += aws_event("contentBlockStop", {"contentBlockIndex": 0})
    pieces[-1] += aws_event("messageStop", {"stopReason": "end_turn"})
    pieces[-1] += aws_event("metadata", {"usage": usage, "metrics": {"latencyMs": 120}}) + http_chunk(b"")
    return tuple(pieces)


def split_writes(pieces: tuple[bytes, ...], pieces_per_write: int) -> tuple[bytes | memoryview, ...]:
    """The bytes of each write: `pieces_per_write` pieces, or 64 kB with 0."""
    if pieces_per_write:
        starts = range(0, len(pieces), pieces_per_write)
        return tuple(b"".join(pieces[start : start + pieces_per_write]) for start in starts)
    joined = memoryview(b"".join(pieces))
    return tuple(joined[start : start + WRITE_SIZE] for start in range(0, len(joined), WRITE_SIZE))
