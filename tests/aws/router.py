"""EMD's OpenAI router, the `BaseURL` of its stacks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.aws import sagemaker
from tests.aws.bedrock import as_error_response
from tests.aws.emd import EmdAccount
from tests.aws.scripted_responses import (
    BadChecksum,
    ErrorResponse,
    RecordedRequest,
    ScriptedResponse,
    StreamError,
    StreamException,
    TextResponse,
)
from tests.upstream import RawPiece, raw_response

InferenceHandler = Callable[
    [web.Request, RecordedRequest, Callable[[ScriptedResponse], Awaitable[web.StreamResponse]]],
    Awaitable[web.StreamResponse],
]
"""`Aws._infer`: counts a call, and writes its scripted response."""


def create_app(emd: EmdAccount, infer: InferenceHandler) -> web.Application:
    """The routes that chat completions need."""

    async def models(request: web.Request) -> web.Response:
        names = [name for name, deployment in emd.deployments.items() if deployment.is_serving]
        rows = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "emd"} for name in names]
        return web.json_response({"object": "list", "data": rows})

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def chat(request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _error(400, "Invalid JSON payload")
        name = body.get("model") if isinstance(body, dict) else None
        if not isinstance(name, str) or not name:
            return _error(400, "Model field in payload is required")
        name = name if "/" in name else f"{name}/dev"
        model = emd.deployments.get(name)
        if model is None or not model.is_serving:
            return _error(404, f"model {name} not found in any endpoint")
        if model.api_key and request.headers.get("Authorization") != f"Bearer {model.api_key}":
            return _error(401, "Invalid API key for this model")
        recorded = RecordedRequest("ChatCompletions", "router", emd.region, request.headers, body, name)

        async def write(response: ScriptedResponse) -> web.StreamResponse:
            return await _write_completion(request, response, model.model_id, stream=bool(body.get("stream")))

        return await infer(request, recorded, write)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    app.add_routes([web.get(path, health) for path in ("/", "/health", "/ping")])
    return app


def _error(status: int, text: str, headers: Any = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)


async def _write_completion(
    request: web.Request, response: ScriptedResponse, model_id: str, *, stream: bool
) -> web.StreamResponse:
    if isinstance(response, ErrorResponse):
        return _error(response.status or 500, response.message, response.headers)
    if stream:
        return await raw_response(
            _sse_pieces(response, model_id),
            headers={"Content-Type": "text/event-stream"},
            cut_at=response.cut_at,
            block_size=response.block_size,
        )(request)
    resolved = await sagemaker.resolve_gates(response)
    if isinstance(resolved, ErrorResponse):
        return _error(500, resolved.message)
    return await sagemaker.write_json(request, resolved, sagemaker.completion(resolved, model_id), {})


def _sse_pieces(response: TextResponse, model_id: str) -> list[RawPiece]:
    """SSE; as in EMD's router without `[DONE]` and usage if the finish reason is `stop` or `length`."""
    finish = sagemaker.FINISH_REASONS.get(response.stop_reason or "", response.stop_reason)
    done = response.done if response.done is not None else finish not in {"stop", "length"}
    lines: list[RawPiece] = []
    for piece in sagemaker.chat_stream(response, model_id, sse=response.sse is not False, done=done):
        if isinstance(piece, StreamException | StreamError):
            text = as_error_response(piece).message
            lines.append(b"data: " + json.dumps({"error": text}).encode() + b"\n\n")
        elif not isinstance(piece, BadChecksum):
            lines.append(piece)
    return lines
