"""EMD's OpenAI router: what stands behind the `BaseURL` of its stacks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.aws import sagemaker
from tests.aws.bedrock import as_failure
from tests.aws.emd import Emd
from tests.aws.script import Asked, BadChecksum, Erred, Fails, Raised, Said, Says
from tests.upstream import Raw, raw

Inference = Callable[
    [web.Request, Asked, Callable[[Said], Awaitable[web.StreamResponse]]], Awaitable[web.StreamResponse]
]
"""How the server has a call answered: it counts it, and asks the script."""


def app(emd: Emd, infer: Inference) -> web.Application:
    """Its routes that chat needs."""

    async def models(request: web.Request) -> web.Response:
        names = [name for name, one in emd.deployed.items() if one.is_served]
        rows = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "emd"} for name in names]
        return web.json_response({"object": "list", "data": rows})

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def chat(request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _refusal(400, "Invalid JSON payload")
        name = body.get("model") if isinstance(body, dict) else None
        if not isinstance(name, str) or not name:
            return _refusal(400, "Model field in payload is required")
        name = name if "/" in name else f"{name}/dev"
        one = emd.deployed.get(name)
        if one is None or not one.is_served:
            return _refusal(404, f"model {name} not found in any endpoint")
        if one.key and request.headers.get("Authorization") != f"Bearer {one.key}":
            return _refusal(401, "Invalid API key for this model")
        asked = Asked("ChatCompletions", "router", emd.region, request.headers, body, name)

        async def write(said: Said) -> web.StreamResponse:
            return await _write(request, said, one.model_id, stream=bool(body.get("stream")))

        return await infer(request, asked, write)

    routed = web.Application(client_max_size=64 * 1024 * 1024)
    routed.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    routed.add_routes([web.get(path, health) for path in ("/", "/health", "/ping")])
    return routed


def _refusal(status: int, text: str, headers: Any = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)


async def _write(request: web.Request, said: Said, model_id: str, *, stream: bool) -> web.StreamResponse:
    if isinstance(said, Fails):
        return _refusal(said.status or 500, said.message, said.headers)
    if stream:
        return await raw(
            _lines(said, model_id),
            headers={"Content-Type": "text/event-stream"},
            cut_at=said.cut_at,
            block=said.block,
        )(request)
    whole = await sagemaker.waited(said)
    if isinstance(whole, Fails):
        return _refusal(500, whole.message)
    return await sagemaker.whole(request, whole, sagemaker.completion(whole, model_id), {})


def _lines(says: Says, model_id: str) -> list[Raw]:
    """SSE; as EMD's router does, without `[DONE]` and usage once the reason to finish was `stop` or `length`."""
    finish = sagemaker.FINISH.get(says.stop or "", says.stop)
    done = says.done if says.done is not None else finish not in {"stop", "length"}
    lines: list[Raw] = []
    for piece in sagemaker.chat_stream(says, model_id, sse=says.sse is not False, done=done):
        if isinstance(piece, Raised | Erred):
            text = as_failure(piece).message
            lines.append(b"data: " + json.dumps({"error": text}).encode() + b"\n\n")
        elif not isinstance(piece, BadChecksum):
            lines.append(piece)
    return lines
