"""Converse and ConverseStream: a scripted answer as Bedrock sends it."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.aws import errors, eventstream, validate
from tests.aws.models import Model, find
from tests.aws.script import BadChecksum, Called, Cut, Erred, Fails, Raised, Said, Says, Thought
from tests.upstream import Answer, Raw, raw

PATH = re.compile(r"/model/(?P<target>[^/]+)/(?P<operation>converse|converse-stream)")
OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream"}
METRICS = {"latencyMs": 120}
ENDED = "This model version has reached the end of its life. Please refer to the AWS documentation for more details."


def called(path: str) -> tuple[str, str] | None:
    """The operation and the model id, if this path is one of ours."""
    found = PATH.fullmatch(path)
    return found and (OPERATIONS[found["operation"]], unquote(found["target"]))


def refused(operation: str, target: str, body: Any, models: dict[str, Model]) -> Fails | None:
    """Why Bedrock would not even ask the model."""
    model = find(models, target)
    if isinstance(model, str):
        return Fails("ValidationException", model)
    if model.ended:
        return Fails("ResourceNotFoundException", ENDED)
    fault = validate.fault(operation, body, model)
    return Fails("ValidationException", fault) if fault else None


async def answer(request: web.Request, operation: str, said: Said) -> web.StreamResponse:
    if isinstance(said, Fails):
        return errors.response(said, errors.REST)
    written = _streamed(said) if operation == "ConverseStream" else _whole(said)
    return await written(request)


def _whole(says: Says) -> Answer:
    waits = [piece for piece in says.pieces if isinstance(piece, asyncio.Event)]
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    for piece in says.pieces:
        if isinstance(piece, Raised | Erred):
            return _failing(waits, as_failure(piece))
    content: list[dict[str, Any]] = [{"text": says.text}]
    called = [piece for piece in says.pieces if isinstance(piece, Called)]
    content += [{"toolUse": {"toolUseId": one.id, "name": one.name, "input": one.input}} for one in called]
    if says.thoughts:
        content.insert(0, {"reasoningContent": {"reasoningText": {"text": says.thoughts, "signature": "c2ln"}}})
    whole = {"output": {"message": {"role": "assistant", "content": content}}, "metrics": METRICS}
    whole |= {"stopReason": says.stop or "end_turn", "usage": usage_of(says.usage or {})}
    body = json.dumps(whole).encode()
    cut = len(body) // 2 if says.first(Cut) is not None else says.cut_at
    return raw([*waits, body], headers={**headers, "Content-Length": str(len(body))}, cut_at=cut, block=says.block)


def as_failure(piece: Raised | Erred) -> Fails:
    """What would have been an exception in mid-stream, for a call that does not stream."""
    if isinstance(piece, Erred):
        return Fails(piece.code, piece.message, 500)
    return Fails(piece.member[0].upper() + piece.member[1:], piece.message, fields=piece.fields)


def _failing(waits: list[asyncio.Event], fails: Fails) -> Answer:
    async def write(request: web.Request) -> web.StreamResponse:
        for event in waits:
            await event.wait()
        return errors.response(fails, errors.REST)

    return write


def _streamed(says: Says) -> Answer:
    headers = {
        "Content-Type": "application/vnd.amazon.eventstream",
        "X-Amzn-Bedrock-Content-Type": "application/json",
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
    return raw(list(frames(says)), headers=headers, cut_at=says.cut_at, block=says.block)


def frames(says: Says) -> Iterator[Raw]:
    """The messages of the stream, with what to wait for in between."""
    begun = any(isinstance(piece, dict) and "messageStart" in piece for piece in says.pieces)
    blocks: list[int] = []  # the one that is open: its number goes up when the kind of delta changes
    kind = ""
    for piece in says.pieces:
        if isinstance(piece, str | Thought | BadChecksum | Erred | Raised) and not begun:
            begun = True
            yield eventstream.event("messageStart", {"role": "assistant"})
        if isinstance(piece, str | Thought):
            if blocks and kind != type(piece).__name__:
                yield eventstream.event("contentBlockStop", {"contentBlockIndex": blocks[-1]})
                blocks.append(len(blocks))
            blocks, kind = blocks or [0], type(piece).__name__
            delta: dict[str, Any] = (
                {"text": piece} if isinstance(piece, str) else {"reasoningContent": {"text": piece.text}}
            )
            yield eventstream.event("contentBlockDelta", {"delta": delta, "contentBlockIndex": blocks[-1]})
        elif isinstance(piece, Called):
            number = blocks[-1] + 1 if blocks else 0
            if blocks:
                yield eventstream.event("contentBlockStop", {"contentBlockIndex": blocks[-1]})
            yield from _call(piece, number)
            blocks, kind = [*blocks, number], ""
        elif isinstance(piece, dict):
            yield from (eventstream.event(name, payload) for name, payload in piece.items())
        elif isinstance(piece, Raised):
            yield eventstream.exception(piece.member, {"message": piece.message, **piece.fields})
            return
        elif isinstance(piece, Erred):
            yield eventstream.error(piece.code, piece.message)
            return
        elif isinstance(piece, BadChecksum):
            damaged = {"delta": {"text": "damaged"}, "contentBlockIndex": 0}
            yield eventstream.event("contentBlockDelta", damaged, damaged=True)
        else:
            yield piece
    yield from _ending(says, begun=begun, blocks=blocks)


def _call(called: Called, number: int) -> Iterator[bytes]:
    """Its arguments in two pieces, cut where no JSON is whole; its end comes with the next block, or the last."""
    at = {"contentBlockIndex": number}
    start = {"toolUse": {"toolUseId": called.id, "name": called.name}}
    yield eventstream.event("contentBlockStart", {"start": start, **at})
    written = json.dumps(called.input)
    for piece in (written[:1], written[1:]):
        yield eventstream.event("contentBlockDelta", {"delta": {"toolUse": {"input": piece}}, **at})


def _ending(says: Says, *, begun: bool, blocks: list[int]) -> Iterator[bytes]:
    if not begun:
        yield eventstream.event("messageStart", {"role": "assistant"})
    if blocks:
        yield eventstream.event("contentBlockStop", {"contentBlockIndex": blocks[-1]})
    if says.stop is not None:
        yield eventstream.event("messageStop", {"stopReason": says.stop})
    if says.usage is not None:
        yield eventstream.event("metadata", {"usage": usage_of(says.usage), "metrics": METRICS})


def usage_of(usage: Mapping[str, int]) -> dict[str, int]:
    """With the total, which is all tokens, those from the cache as well."""
    counted = {"inputTokens": 0, "outputTokens": 0, **usage}
    return {**counted, "totalTokens": sum(counted.values())}
