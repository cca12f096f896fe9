"""Every address but those of deploy jobs, which hyperpod.py describes."""

from __future__ import annotations

from typing import Any, Final

from server import wire
from server.openapi import answers, chat_answers
from server.openapi.operation import ALWAYS, ASKS_MODELS, BODIES, Operation, Parameter
from server.requests import InferenceBody, MultiInferenceBody
from server.shapes.anthropic import MessagesRequest
from server.shapes.openai import ChatCompletionRequest

_STREAM_HEADERS: Final = {"X-Stream-Id": "The stream's id, for `/api/streams/{stream_id}`"}
_EVENTS: Final[dict[str, Any]] = dict.fromkeys((wire.SSE, wire.NDJSON, wire.MSGPACK_EVENTS), str)
_ENVELOPE: Final[dict[str, Any]] = dict.fromkeys(BODIES, answers.Envelope)
_OF_EVENTS = "Each event is one of the schema `Event`: `start`, chunks, a `result` or an `error` per model, `complete`."


def _path(name: str, description: str) -> tuple[Parameter, ...]:
    return (Parameter(name, description, schema={"type": "string", "minLength": 1}),)


def _preset(name: str) -> tuple[Parameter, ...]:
    pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"
    return (Parameter(name, "the name of a preset", schema={"type": "string", "pattern": pattern}),)


def _asking(path: str, summary: str, *parameters: Parameter) -> Operation:
    return Operation(
        "post",
        path,
        "Inference",
        summary,
        parameters=parameters,
        body=InferenceBody,
        answers=_ENVELOPE,
        errors=(*ASKS_MODELS, 406),
    )


def _listing(path: str, group: str, summary: str, answer: Any, **more: Any) -> Operation:
    kinds = dict.fromkeys(BODIES, answer)
    return Operation("get", path, group, summary, answers=kinds, errors=(*ALWAYS, 406), **more)


_INFERENCE: Final = [
    _asking("/api/models/{name}", "One answer of any model", *_preset("name")),
    _asking("/api/claude4", "One answer of Claude"),
    _asking("/api/nova", "One answer of Nova"),
    _asking("/api/emd/{model_key}", "One answer of a model that EMD deployed", *_preset("model_key")),
    Operation(
        "post",
        "/api/multi-inference",
        "Inference",
        "Several models at once, side by side",
        "One that fails or hangs delays no other. " + _OF_EVENTS,
        body=MultiInferenceBody,
        answers={**dict.fromkeys(BODIES, answers.MultiAnswer), **_EVENTS},
        headers=_STREAM_HEADERS,
        errors=(*ASKS_MODELS, 406),
    ),
    Operation(
        "post",
        "/api/stream/{model_name}",
        "Streams",
        "Tokens as they come",
        _OF_EVENTS + " As `text/plain`, the bare text.",
        parameters=_preset("model_name"),
        body=InferenceBody,
        answers={**_EVENTS, wire.TEXT: str},
        headers=_STREAM_HEADERS,
        errors=(*ASKS_MODELS, 406),
    ),
    Operation(
        "get",
        "/api/streams/{stream_id}",
        "Streams",
        "A stream from any event on, then live",
        _OF_EVENTS,
        parameters=(
            *_path("stream_id", "what `X-Stream-Id` and the `start` event said"),
            Parameter("after", "the seq of the last event that you have", "query", {"type": "integer", "minimum": 0}),
            Parameter("Last-Event-ID", "the same, as browsers send it", "header"),
        ),
        answers={**_EVENTS, wire.TEXT: str},
        headers=_STREAM_HEADERS,
        errors=(*ALWAYS, 404, 406),
    ),
    Operation(
        "delete",
        "/api/streams/{stream_id}",
        "Streams",
        "Stops a stream for all its readers",
        parameters=_path("stream_id", "what `X-Stream-Id` and the `start` event said"),
        status=204,
        errors=(*ALWAYS, 404),
    ),
]

_MODELS: Final = [
    _listing("/api/models", "Models", "Every model, and whether it could answer now", answers.ModelList),
    _listing("/api/emd/models", "Models", "The models that EMD can deploy", answers.EmdModelList),
    _listing("/api/emd/status", "Models", "How each deployment of EMD's stands", answers.EmdStatus),
]

_OF_OPENAI: Final[dict[str, Any]] = {"error": chat_answers.OpenAIError, "group": "OpenAI's shape"}
_OTHERS: Final = [
    Operation(
        "post",
        "/v1/chat/completions",
        summary="OpenAI's Chat Completions",
        description="With `stream`, each `data:` is a `ChatCompletionChunk`, or an `error`; the last is `[DONE]`.",
        body=ChatCompletionRequest,
        answers={wire.JSON: chat_answers.ChatCompletion, wire.SSE: str},
        errors=ASKS_MODELS,
        **_OF_OPENAI,
    ),
    Operation(
        "get",
        "/v1/models",
        summary="The presets, for OpenAI's and Anthropic's clients",
        answers={wire.JSON: chat_answers.V1ModelList},
        **_OF_OPENAI,
    ),
    Operation(
        "get",
        "/v1/models/{id}",
        summary="One preset",
        parameters=_preset("id"),
        answers={wire.JSON: chat_answers.V1Model},
        errors=(*ALWAYS, 404),
        **_OF_OPENAI,
    ),
    Operation(
        "post",
        "/v1/messages",
        "Anthropic's shape",
        "Anthropic's Messages",
        "With `stream`, the events of Anthropic's: `message_start`, `content_block_start`, `content_block_delta`, "
        "`content_block_stop`, `message_delta`, `message_stop`, `ping`, `error`.",
        body=MessagesRequest,
        answers={wire.JSON: chat_answers.AnthropicAnswer, wire.SSE: str},
        headers={"request-id": "The same, as Anthropic's clients look for it"},
        errors=ASKS_MODELS,
        error=chat_answers.AnthropicError,
    ),
]

_SOCKETS: Final = [
    Operation(
        "get",
        path,
        "WebSocket",
        summary,
        "Subprotocols: `forgeline.v1.json` and `forgeline.v1.msgpack`. " + _OF_EVENTS,
        parameters=parameters,
        status=101,
        errors=(*ALWAYS, 404),
    )
    for path, summary, parameters in (
        ("/ws", "Many streams on one socket, each under an id of its client's", ()),
        (
            "/ws/stream/{model_name}",
            "One model: each message is a request",
            _preset("model_name"),
        ),
    )
]

_SERVER: Final = [
    _listing("/healthz", "Server", "Whether it lives", answers.Health, needs_key=False),
    Operation(
        "get",
        "/readyz",
        "Server",
        "Whether it takes work",
        answers={wire.JSON: answers.Health},
        errors=(*ALWAYS, 503),
        needs_key=False,
    ),
    Operation("get", "/metrics", "Server", "For Prometheus", answers={wire.TEXT: str}),
    Operation("get", "/api/openapi.json", "Server", "This description", answers={wire.JSON: dict}, needs_key=False),
    Operation("get", "/api/docs", "Server", "A page that shows it", answers={"text/html": str}, needs_key=False),
]

OPERATIONS: Final = (*_INFERENCE, *_MODELS, *_OTHERS, *_SOCKETS, *_SERVER)
