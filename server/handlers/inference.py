"""Inference: one model or several; one body, or events as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from tornado.iostream import StreamClosedError

from pipeline.envelope import Envelope
from pipeline.errors import InvalidRequest, ModelNotDeployed, UnknownModel
from pipeline.messages import Failure, InferenceRequest, Result
from pipeline.streams import Stream, StreamRecord
from server.errors import ClientDisconnected, error_fields
from server.fast import chunked_writer
from server.handlers.base import ApiHandler
from server.inference import encoders
from server.inference.delivery import collect_outcomes, deliver, read_opening
from server.inference.parsing import (
    InferenceBody,
    MultiInferenceBody,
    ParsedRequest,
    RequestContext,
    parse_inference,
    parse_multi_inference,
)
from server.inference.response_types import (
    FailedModelResult,
    ModelResult,
    MultiAnswer,
    MultiMetadata,
    NotDeployed,
    Succeeded,
)
from server.observability.logs import outcome_fields
from server.openapi.operation import INFERENCE_ERRORS, ApiOperation, PresetName, in_both_formats

ParsedT = TypeVar("ParsedT", bound=ParsedRequest)

EVENT_ANSWERS: Final[dict[str, Any]] = dict.fromkeys((encoders.SSE, encoders.NDJSON, encoders.MSGPACK_EVENTS), str)
EVENTS_DESCRIPTION: Final = (
    "Each event is one of the schema `Event`: `start`, chunks, a `result` or an `error` per model, `complete`."
)
STREAM_HEADERS: Final = {"X-Stream-Id": "The stream's id, for `/api/streams/{stream_id}`"}


class InferenceHandler(ApiHandler):
    """A handler that turns a request into a stream, and the stream's events into an answer."""

    def parse_body(self, parse: Callable[[Any, RequestContext, int], ParsedT]) -> ParsedT:
        if "Last-Event-ID" in self.request.headers:
            raise InvalidRequest("A POST begins a new stream; to resume one, GET /api/streams/{stream_id}.")
        parsed = parse(self.read_body(), self.request_context, self.services.options.max_frames)
        self.request_summary = parsed.request.summary
        return parsed

    def initialize(self, route_path: str) -> None:
        super().initialize(route_path)
        self.stream: Stream | None = None

    def log_fields(self) -> dict[str, Any]:
        return {} if self.stream is None else {"models": outcome_fields(self.stream)}

    async def wait_for_result(self, stream: Stream) -> Result:
        """The whole answer of a stream that has one model. Raises the model's error."""
        self.stream = stream
        with stream.attach() as self.cursor:
            outcome = (await collect_outcomes(self.cursor))[stream.models[0]]
        if isinstance(outcome, Failure):
            raise outcome.error.without_traceback()
        return outcome

    async def send_events(
        self,
        stream: Stream,
        content_type: str,
        encoder: encoders.Encoder[StreamRecord] | None = None,
        *,
        after: int = -1,
        commit: bool = False,
    ) -> None:
        """Send the stream's events as they come, in our own format unless `encoder` is given.

        `after`: the seq of the last event that the client has. With `commit` the answer begins at once, with status
        200; otherwise an error before the first chunk is answered with its own status.
        """
        heartbeat = self.services.options.heartbeat
        self.stream = stream
        writer = chunked_writer(self, encoder or encoders.EVENT_ENCODERS[content_type](stream.models[0]))
        with stream.attach(after) as cursor:
            self.cursor = cursor
            cursor.on_abort = writer.abort
            batch = [] if commit else await read_opening(cursor, heartbeat)
            if len(batch) > 1 and isinstance(batch[1], Failure):
                raise batch[1].error.without_traceback()
            # SSE is always UTF-8; plain text without a charset is Latin-1 to many clients.
            self.set_header(
                "Content-Type", f"{content_type}; charset=utf-8" if content_type == encoders.TEXT else content_type
            )
            self.set_header("X-Stream-Id", stream.id)
            self.set_header("X-Accel-Buffering", "no")
            try:
                if batch:
                    await writer.write(batch, after + 1)
                    if len(batch) == 1:
                        await writer.heartbeat()
                await deliver(cursor, writer, heartbeat)
                writer.end()
            except StreamClosedError as error:
                raise ClientDisconnected("The client left.") from error


class ModelHandler(InferenceHandler):
    """POST /api/models/{name}, and two models with paths of their own: /api/claude4, /api/nova."""

    @ApiOperation(
        tag="Inference",
        summary="One answer of any model",
        description="`/api/claude4` and `/api/nova` are the presets of these names.",
        body=InferenceBody,
        answers=in_both_formats(Envelope),
        errors=(*INFERENCE_ERRORS, 406),
    )
    async def post(self, name: PresetName) -> None:
        await self.send_result(name)

    async def send_result(self, name: str) -> None:
        """Parse the body, and answer with what this model says."""
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        parsed = self.parse_body(parse_inference)
        if parsed.resumable:
            raise InvalidRequest("resumable: only a streaming answer can be resumed; see /api/stream/{model_name}.")
        self.validate_model(name)
        stream = self.services.streams.open(parsed.request, [name], owner=self.owner, retain=False)
        self.send_body((await self.wait_for_result(stream)).envelope, content_type)

    def validate_model(self, name: str) -> None:
        """Raises UnknownModel for a model that this path does not serve."""


class EmdInferenceHandler(ModelHandler):
    """POST /api/emd/{model_key}: only models of the provider `emd`."""

    @ApiOperation(
        tag="Inference",
        summary="One answer of a model that EMD deployed",
        body=InferenceBody,
        answers=in_both_formats(Envelope),
        errors=(*INFERENCE_ERRORS, 406),
    )
    async def post(self, model_key: PresetName) -> None:
        await self.send_result(model_key)

    def validate_model(self, name: str) -> None:
        preset = self.services.runtime.models.get(name)
        if preset is None or preset.provider != "emd":
            raise UnknownModel(f"No preset defines an EMD model {name!r}; GET /api/models lists all models.")


class StreamHandler(InferenceHandler):
    """POST /api/stream/{model_name}: tokens as they come."""

    @ApiOperation(
        tag="Streams",
        summary="Tokens as they come",
        description=EVENTS_DESCRIPTION + " As `text/plain`, the bare text.",
        body=InferenceBody,
        answers={**EVENT_ANSWERS, encoders.TEXT: str},
        headers=STREAM_HEADERS,
        errors=(*INFERENCE_ERRORS, 406),
    )
    async def post(self, model_name: PresetName) -> None:
        content_type = self.negotiate(encoders.SSE, encoders.NDJSON, encoders.MSGPACK_EVENTS, encoders.TEXT)
        parsed = self.parse_body(parse_inference)
        stream = self.services.streams.open(parsed.request, [model_name], owner=self.owner, resumable=parsed.resumable)
        await self.send_events(stream, content_type)


class MultiInferenceHandler(InferenceHandler):
    """POST /api/multi-inference: all models at once, as one body or as events."""

    @ApiOperation(
        tag="Inference",
        summary="Several models at once, side by side",
        description="One that fails or hangs delays no other. " + EVENTS_DESCRIPTION,
        body=MultiInferenceBody,
        answers={**in_both_formats(MultiAnswer), **EVENT_ANSWERS},
        headers=STREAM_HEADERS,
        errors=(*INFERENCE_ERRORS, 406),
    )
    async def post(self) -> None:
        content_type = self.negotiate(
            encoders.JSON, encoders.MSGPACK, encoders.SSE, encoders.NDJSON, encoders.MSGPACK_EVENTS
        )
        parsed = self.parse_body(parse_multi_inference)
        streaming = content_type in encoders.EVENT_ENCODERS
        if parsed.resumable and not streaming:
            raise InvalidRequest(
                f"resumable: only a streaming answer can be resumed; Accept {encoders.SSE} asks for one."
            )
        stream = self.services.streams.open(
            parsed.request, parsed.models, owner=self.owner, resumable=parsed.resumable, retain=streaming
        )
        if streaming:
            await self.send_events(stream, content_type, commit=True)
        else:
            await self._send_results(stream, parsed.request, content_type)

    async def _send_results(self, stream: Stream, request: InferenceRequest, content_type: str) -> None:
        self.stream = stream
        with stream.attach() as self.cursor:
            outcomes = await collect_outcomes(self.cursor)
        answer = MultiAnswer(
            time=datetime.now(UTC).isoformat(),
            request=request.summary,
            results=[_describe_outcome(outcomes[model], request.received_at) for model in stream.models],
            metadata=MultiMetadata(self.request_id, _milliseconds(time.monotonic() - request.received_at)),
        )
        self.send_body(answer, content_type)


def _describe_outcome(outcome: Result | Failure, received: float) -> ModelResult:
    """One model's entry in the answer of several."""
    if isinstance(outcome, Result):
        envelope = outcome.envelope
        return Succeeded(outcome.model, envelope["response"], envelope["metadata"]["duration_ms"])
    kind = NotDeployed if isinstance(outcome.error, ModelNotDeployed) else FailedModelResult
    duration = _milliseconds(outcome.failed_at - received)
    return kind(model=outcome.model, duration_ms=duration, **error_fields(outcome.error))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
