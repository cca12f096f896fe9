"""SageMaker's runtime with EMD's container behind it, and the chat completions that it and EMD's router answer with."""

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
from tests.aws.bedrock import as_failure
from tests.aws.script import BadChecksum, Called, Cut, Erred, Fails, Raised, Said, Says, Thought
from tests.upstream import Raw, raw

PATH = re.compile(r"/endpoints/(?P<target>[^/]+)/(?P<operation>invocations|invocations-response-stream)")
OPERATIONS = {"invocations": "InvokeEndpoint", "invocations-response-stream": "InvokeEndpointWithResponseStream"}
MAX_BODY = 6_291_456  # bytes
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "content_filtered": "content_filter"}

Special = asyncio.Event | Cut | Raised | Erred | BadChecksum


def called(path: str) -> tuple[str, str] | None:
    """The operation and the endpoint's name, if this path is one of ours."""
    found = PATH.fullmatch(path)
    return found and (OPERATIONS[found["operation"]], unquote(found["target"]))


def refused(target: str, size: int, account: str, *, in_service: bool) -> Fails | None:
    """Why SageMaker would not even ask the container."""
    if size > MAX_BODY:
        constraint = f"Member must have length less than or equal to {MAX_BODY}"
        text = f"1 validation error detected: Value at 'body' failed to satisfy constraint: {constraint}"
        return Fails("ValidationError", text, 413)
    if not in_service:
        return Fails("ValidationError", f"Endpoint {target} of account {account} not found.")
    return None


async def answer(request: web.Request, operation: str, said: Said, model_id: str) -> web.StreamResponse:
    if isinstance(said, Says) and operation == "InvokeEndpoint":
        said = await waited(said)
    if isinstance(said, Fails):
        return errors.response(said, errors.REST)
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-Amzn-Invoked-Production-Variant": "AllTraffic"}
    if operation == "InvokeEndpoint":
        return await whole(request, said, completion(said, model_id), headers)
    headers["X-Amzn-SageMaker-Content-Type"] = "application/json"
    headers["Content-Type"] = "application/vnd.amazon.eventstream"
    written = raw(list(_parts(said, model_id)), headers=headers, cut_at=said.cut_at, block=said.block)
    return await written(request)


async def waited(says: Says) -> Said:
    """A call that does not stream fails by what would have been an exception in mid-stream."""
    for piece in says.pieces:
        if isinstance(piece, asyncio.Event):
            await piece.wait()
        if isinstance(piece, Raised | Erred):
            return as_failure(piece)
    return says


async def whole(request: web.Request, says: Says, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    cut = len(body) // 2 if says.first(Cut) is not None else says.cut_at
    lengths = {"Content-Length": str(len(body))}
    return await raw([body], headers=headers | lengths, cut_at=cut, block=says.block)(request)


def _parts(says: Says, model_id: str) -> Iterator[Raw]:
    """The event stream: the body's bytes in PayloadParts of the sizes wanted."""
    sizes = cycle(says.parts) if says.parts else None
    size = next(sizes) if sizes else 0
    held = b""
    for piece in chat_stream(says, model_id, sse=bool(says.sse), done=bool(says.done)):
        if isinstance(piece, bytes):
            held += piece
            while held and (sizes is None or len(held) >= size):
                part, held = (held[:size], held[size:]) if sizes else (held, b"")
                size = next(sizes) if sizes else 0
                yield eventstream.event("PayloadPart", part)
            continue
        if held:
            yield eventstream.event("PayloadPart", held)
            held = b""
        if isinstance(piece, Raised):
            yield eventstream.exception(piece.member, {"Message": piece.message, **piece.fields})
        elif isinstance(piece, Erred):
            yield eventstream.error(piece.code, piece.message)
        elif isinstance(piece, BadChecksum):
            yield eventstream.event("PayloadPart", b"damaged", damaged=True)
        else:
            yield piece
    if held:
        yield eventstream.event("PayloadPart", held)


# --- chat completions ------------------------------------------------------------------------------


def completion(says: Says, model_id: str) -> bytes:
    """The answer at once. Bytes in the script are the body as it is."""
    given = b"".join(piece for piece in says.pieces if isinstance(piece, bytes))
    if given:
        return given
    message: dict[str, Any] = {"role": "assistant", "content": says.text}
    if says.thoughts:
        message["reasoning_content"] = says.thoughts
    choice = {"index": 0, "message": message, "finish_reason": _finish(says)}
    whole: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model_id}
    whole |= {"choices": [choice], "usage": _usage(says)}
    return json.dumps(next((piece for piece in says.pieces if isinstance(piece, dict)), whole)).encode()


def chat_stream(says: Says, model_id: str, *, sse: bool, done: bool) -> Iterator[bytes | Special]:
    """The lines of the stream, with what comes between them; none after an error."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model_id}

    def line(chunk: dict[str, Any]) -> bytes:
        coded = json.dumps(chunk).encode()
        return b"data: " + coded + b"\n\n" if sse else coded + b"\n"

    def delta(fields: dict[str, Any], finish: str | None = None) -> bytes:
        return line({**head, "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})

    for piece in says.pieces:
        if isinstance(piece, str):
            yield delta({"content": piece})
        elif isinstance(piece, Thought):
            yield delta({"reasoning_content": piece.text})
        elif isinstance(piece, Called):
            function = {"name": piece.name, "arguments": json.dumps(piece.input)}
            yield delta({"tool_calls": [{"index": 0, "id": piece.id, "type": "function", "function": function}]})
        elif isinstance(piece, dict):
            yield line(piece)
        else:
            yield piece
        if isinstance(piece, Raised | Erred):
            return
    if says.stop is not None:
        yield delta({}, _finish(says))
    if says.usage is not None and (done or not sse):
        yield line({**head, "choices": [], "usage": _usage(says)})
    if done:
        yield b"data: [DONE]\n\n" if sse else b"[DONE]\n"


def _finish(says: Says) -> str | None:
    return FINISH.get(says.stop, says.stop) if says.stop is not None else None


def _usage(says: Says) -> dict[str, Any]:
    usage = says.usage or {}
    prompt, out = usage.get("inputTokens", 0), usage.get("outputTokens", 0)
    counted: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out}
    if "cacheReadInputTokens" in usage:
        counted["prompt_tokens_details"] = {"cached_tokens": usage["cacheReadInputTokens"]}
    return counted
