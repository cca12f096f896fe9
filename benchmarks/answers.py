"""The mock upstream's answers as ready bytes: OpenAI's chat completions, and Bedrock's ConverseStream."""

from __future__ import annotations

import functools
import json
import struct
import zlib
from typing import Any

ANSWER = "The answer of the mock upstream"
WORDS = (" the", " of", " cluster", " node", " token", " GPU", " and", " ready", ", then", " über", " model", ".\n")
BLOCK = 64 * 1024
AWS_ERROR = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code>"
    "<Message>Stack with id bench does not exist</Message></Error></ErrorResponse>"
)


def head(headers: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nServer: mock\r\n{headers}\r\n\r\n".encode()


def whole(body: str, media: str = "application/json", status: str = "200 OK") -> bytes:
    return head(f"Content-Type: {media}\r\nContent-Length: {len(body.encode())}", status) + body.encode()


def _plain() -> str:
    message = {"role": "assistant", "content": ANSWER + "".join(WORDS) * 5}
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


PLAIN = whole(_plain())
LISTED = whole('{"object":"list","data":[]}')
NO_STACK = whole(AWS_ERROR, "text/xml", "400 Bad Request")  # to CloudFormation's questions, which jobs may ask
NO_LENGTH = head("Content-Length: 0\r\nConnection: close", "411 Length Required")


def http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def framed(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    """One chunk object as an SSE event, in an HTTP chunk of its own, as real servers send it."""
    chunk = {
        "id": "chatcmpl-bench0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return http_chunk(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def token(model: str, text: str) -> bytes:
    return framed(model, [{"index": 0, "delta": {"content": text}, "finish_reason": None}])


SSE_HEAD = head("Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked")


def begun(model: str, chunks: int) -> list[bytes]:
    """An answer without its end, in pieces: one per token, the first with the head before it."""
    first = {"role": "assistant", "content": WORDS[0]}
    pieces = [SSE_HEAD + framed(model, [{"index": 0, "delta": first, "finish_reason": None}])]
    return pieces + [token(model, WORDS[number % len(WORDS)]) for number in range(1, chunks)]


@functools.cache
def stream(model: str, chunks: int) -> tuple[bytes, ...]:
    """The whole answer in pieces, one per token, the last with the end behind it."""
    pieces = begun(model, chunks)
    usage = {"prompt_tokens": 200, "completion_tokens": chunks, "total_tokens": 200 + chunks}
    pieces[-1] += framed(model, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    pieces[-1] += framed(model, [], usage) + http_chunk(b"data: [DONE]\n\n") + http_chunk(b"")
    return tuple(pieces)


def event(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of AWS's event stream, in an HTTP chunk of its own: prelude, headers, payload, each with its CRC."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    coded = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    body = json.dumps(payload, separators=(",", ":")).encode()
    lengths = struct.pack(">II", len(coded) + len(body) + 16, len(coded))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + coded + body
    return http_chunk(message + struct.pack(">I", zlib.crc32(message)))


@functools.cache
def converse_stream(chunks: int) -> tuple[bytes, ...]:
    """ConverseStream's answer in pieces, as `stream`."""
    words = (WORDS[number % len(WORDS)] for number in range(chunks))
    pieces = [event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in words]
    headers = "Content-Type: application/vnd.amazon.eventstream\r\nX-Amzn-Bedrock-Content-Type: application/json"
    begin = head(f"{headers}\r\nx-amzn-RequestId: bench\r\nTransfer-Encoding: chunked")
    pieces[0] = begin + event("messageStart", {"role": "assistant"}) + pieces[0]
    usage = {"inputTokens": 200, "outputTokens": chunks, "totalTokens": 200 + chunks}
    pieces[-1] += event("contentBlockStop", {"contentBlockIndex": 0}) + event("messageStop", {"stopReason": "end_turn"})
    pieces[-1] += event("metadata", {"usage": usage, "metrics": {"latencyMs": 120}}) + http_chunk(b"")
    return tuple(pieces)


def blocks(pieces: tuple[bytes, ...], at_once: int) -> tuple[bytes | memoryview, ...]:
    """What is written at once: so many pieces, or, with 0, 64 kB."""
    if at_once:
        return tuple(b"".join(pieces[at : at + at_once]) for at in range(0, len(pieces), at_once))
    joined = memoryview(b"".join(pieces))
    return tuple(joined[at : at + BLOCK] for at in range(0, len(joined), BLOCK))
