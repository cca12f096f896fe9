"""The operations of every address except those of jobs, which are in hyperpod.py."""

from __future__ import annotations

from typing import Any, Final

from pipeline.presets.store import NAME_PATTERN
from server.compat.anthropic.messages_parser import MessagesRequest
from server.compat.openai.chat_parser import ChatCompletionRequest
from server.inference import encoders
from server.inference.parsing import InferenceBody, MultiInferenceBody
from server.openapi import compat_types, native_types
from server.openapi.operation import BODY_CONTENT_TYPES, COMMON_ERRORS, INFERENCE_ERRORS, ApiOperation, ApiParameter

_STREAM_HEADERS: Final = {"X-Stream-Id": "The stream's id, for `/api/streams/{stream_id}`"}
_EVENT_STREAM_TYPES: Final[dict[str, Any]] = dict.fromkeys(
    (encoders.SSE, encoders.NDJSON, encoders.MSGPACK_EVENTS), str
)
_ENVELOPE_TYPES: Final[dict[str, Any]] = dict.fromkeys(BODY_CONTENT_TYPES, native_types.Envelope)
_EVENTS_DESCRIPTION = (
    "Each event is one of the schema `Event`: `start`, chunks, a `result` or an `error` per model, `complete`."
)


def _path_parameter(name: str, description: str) -> tuple[ApiParameter, ...]:
    return (ApiParameter(name, description, schema={"type": "string", "minLength": 1}),)


def _preset_parameter(name: str) -> tuple[ApiParameter, ...]:
    schema = {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}
    return (ApiParameter(name, "the name of a preset", schema=schema),)


def _inference_operation(path: str, summary: str, *parameters: ApiParameter) -> ApiOperation:
    return ApiOperation(
        "post",
        path,
        "Inference",
        summary,
        parameters=parameters,
        body_type=InferenceBody,
        response_types=_ENVELOPE_TYPES,
        error_statuses=(*INFERENCE_ERRORS, 406),
    )


def _list_operation(path: str, tag: str, summary: str, response_type: Any, **options: Any) -> ApiOperation:
    response_types = dict.fromkeys(BODY_CONTENT_TYPES, response_type)
    return ApiOperation(
        "get", path, tag, summary, response_types=response_types, error_statuses=(*COMMON_ERRORS, 406), **options
    )


_INFERENCE: Final = [
    _inference_operation("/api/models/{name}", "One answer of any model", *_preset_parameter("name")),
    _inference_operation("/api/claude4", "One answer of Claude"),
    _inference_operation("/api/nova", "One answer of Nova"),
    _inference_operation(
        "/api/emd/{model_key}", "One answer of a model that EMD deployed", *_preset_parameter("model_key")
    ),
    ApiOperation(
        "post",
        "/api/multi-inference",
        "Inference",
        "Several models at once, side by side",
        "One that fails or hangs delays no other. " + _EVENTS_DESCRIPTION,
        body_type=MultiInferenceBody,
        response_types={**dict.fromkeys(BODY_CONTENT_TYPES, native_types.MultiAnswer), **_EVENT_STREAM_TYPES},
        response_headers=_STREAM_HEADERS,
        error_statuses=(*INFERENCE_ERRORS, 406),
    ),
    ApiOperation(
        "post",
        "/api/stream/{model_name}",
        "Streams",
        "Tokens as they come",
        _EVENTS_DESCRIPTION + " As `text/plain`, the bare text.",
        parameters=_preset_parameter("model_name"),
        body_type=InferenceBody,
        response_types={**_EVENT_STREAM_TYPES, encoders.TEXT: str},
        response_headers=_STREAM_HEADERS,
        error_statuses=(*INFERENCE_ERRORS, 406),
    ),
    ApiOperation(
        "get",
        "/api/streams/{stream_id}",
        "Streams",
        "A stream from any event on, then live",
        _EVENTS_DESCRIPTION,
        parameters=(
            *_path_parameter("stream_id", "what `X-Stream-Id` and the `start` event said"),
            ApiParameter(
                "after", "the seq of the last event that you have", "query", {"type": "integer", "minimum": 0}
            ),
            ApiParameter("Last-Event-ID", "the same, as browsers send it", "header"),
        ),
        response_types={**_EVENT_STREAM_TYPES, encoders.TEXT: str},
        response_headers=_STREAM_HEADERS,
        error_statuses=(*COMMON_ERRORS, 404, 406),
    ),
    ApiOperation(
        "delete",
        "/api/streams/{stream_id}",
        "Streams",
        "Stops a stream for all its readers",
        parameters=_path_parameter("stream_id", "what `X-Stream-Id` and the `start` event said"),
        success_status=204,
        error_statuses=(*COMMON_ERRORS, 404),
    ),
]

_MODELS: Final = [
    _list_operation("/api/models", "Models", "Every model, and whether it could answer now", native_types.ModelList),
    _list_operation("/api/emd/models", "Models", "The models that EMD can deploy", native_types.EmdModelList),
    _list_operation("/api/emd/status", "Models", "How each deployment of EMD's stands", native_types.EmdStatus),
]

_OPENAI_OPTIONS: Final[dict[str, Any]] = {"error_type": compat_types.OpenAIError, "tag": "OpenAI's shape"}
_COMPAT: Final = [
    ApiOperation(
        "post",
        "/v1/chat/completions",
        summary="OpenAI's Chat Completions",
        description="With `stream`, each `data:` is a `ChatCompletionChunk`, or an `error`; the last is `[DONE]`.",
        body_type=ChatCompletionRequest,
        response_types={encoders.JSON: compat_types.ChatCompletion, encoders.SSE: str},
        error_statuses=INFERENCE_ERRORS,
        **_OPENAI_OPTIONS,
    ),
    ApiOperation(
        "get",
        "/v1/models",
        summary="The presets, for OpenAI's and Anthropic's clients",
        response_types={encoders.JSON: compat_types.V1ModelList},
        **_OPENAI_OPTIONS,
    ),
    ApiOperation(
        "get",
        "/v1/models/{id}",
        summary="One preset",
        parameters=_preset_parameter("id"),
        response_types={encoders.JSON: compat_types.V1Model},
        error_statuses=(*COMMON_ERRORS, 404),
        **_OPENAI_OPTIONS,
    ),
    ApiOperation(
        "post",
        "/v1/messages",
        "Anthropic's shape",
        "Anthropic's Messages",
        "With `stream`, the events of Anthropic's: `message_start`, `content_block_start`, `content_block_delta`, "
        "`content_block_stop`, `message_delta`, `message_stop`, `ping`, `error`.",
        body_type=MessagesRequest,
        response_types={encoders.JSON: compat_types.AnthropicAnswer, encoders.SSE: str},
        response_headers={"request-id": "The same, as Anthropic's clients look for it"},
        error_statuses=INFERENCE_ERRORS,
        error_type=compat_types.AnthropicError,
    ),
]

_WEBSOCKETS: Final = [
    ApiOperation(
        "get",
        path,
        "WebSocket",
        summary,
        "Subprotocols: `forgeline.v1.json` and `forgeline.v1.msgpack`. " + _EVENTS_DESCRIPTION,
        parameters=parameters,
        success_status=101,
        error_statuses=(*COMMON_ERRORS, 404),
    )
    for path, summary, parameters in (
        ("/ws", "Many streams on one socket, each under an id of its client's", ()),
        (
            "/ws/stream/{model_name}",
            "One model: each message is a request",
            _preset_parameter("model_name"),
        ),
    )
]

_SERVER: Final = [
    _list_operation("/healthz", "Server", "Whether it lives", native_types.Health, requires_key=False),
    ApiOperation(
        "get",
        "/readyz",
        "Server",
        "Whether it takes work",
        response_types={encoders.JSON: native_types.Health},
        error_statuses=(*COMMON_ERRORS, 503),
        requires_key=False,
    ),
    ApiOperation("get", "/metrics", "Server", "For Prometheus", response_types={encoders.TEXT: str}),
    ApiOperation(
        "get",
        "/api/openapi.json",
        "Server",
        "This description",
        response_types={encoders.JSON: dict},
        requires_key=False,
    ),
    ApiOperation(
        "get", "/api/docs", "Server", "A page that shows it", response_types={"text/html": str}, requires_key=False
    ),
]

OPERATIONS: Final = (*_INFERENCE, *_MODELS, *_COMPAT, *_WEBSOCKETS, *_SERVER)
