"""Inference: one model or several, one answer or its events as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from tornado.iostream import StreamClosedError

from pipeline.errors import InvalidRequest, ModelNotDeployed, UnknownModel
from pipeline.messages import Failure, InferenceRequest, Result
from pipeline.streams import Record, Stream
from server import wire
from server.accesslog import describe_stream
from server.delivery import deliver, opening, outcomes
from server.errors import ClientLeft, describe
from server.handlers.base import ApiHandler
from server.requests import Arrival, Asked, parse_inference, parse_multi_inference
from server.sinks import ChunkedSink

A = TypeVar("A", bound=Asked)


class InferenceHandler(ApiHandler):
    """What the addresses of inference share: a request becomes a stream, and its events an answer."""

    def read(self, parse: Callable[[Any, Arrival, int], A]) -> A:
        if "Last-Event-ID" in self.request.headers:
            raise InvalidRequest("A POST begins a new stream; to resume one, GET /api/streams/{stream_id}.")
        asked = parse(self.body(), self.arrival, self.services.options.max_frames)
        self.summary = asked.request.summary
        return asked

    def initialize(self) -> None:
        super().initialize()
        self.stream: Stream | None = None

    def log_fields(self) -> dict[str, Any]:
        return {} if self.stream is None else {"models": describe_stream(self.stream)}

    async def result(self, stream: Stream) -> Result:
        """The whole answer of a stream that has one model. Raises what that failed with."""
        self.stream = stream
        with stream.attach() as self.cursor:
            outcome = (await outcomes(self.cursor))[stream.models[0]]
        if isinstance(outcome, Failure):
            raise outcome.error.again()
        return outcome

    async def send_events(
        self,
        stream: Stream,
        kind: str,
        encoder: wire.Encoder[Record] | None = None,
        *,
        after: int = -1,
        commit: bool = False,
    ) -> None:
        """The stream's events as they come, as our own unless an encoder is given.

        Unless `commit`, an early error is an answer with its own status.
        """
        heartbeat = self.services.options.heartbeat
        self.stream = stream
        sink = ChunkedSink(self, encoder or wire.ENCODERS[kind](stream.models[0]))
        with stream.attach(after) as cursor:
            self.cursor = cursor
            cursor.on_cut = sink.cut
            batch = [] if commit else await opening(cursor, heartbeat)
            if len(batch) > 1 and isinstance(batch[1], Failure):
                raise batch[1].error.again()
            # SSE is always UTF-8; plain text without a charset is Latin-1 to many clients.
            self.set_header("Content-Type", f"{kind}; charset=utf-8" if kind == wire.TEXT else kind)
            self.set_header("X-Stream-Id", stream.id)
            self.set_header("X-Accel-Buffering", "no")
            try:
                if batch:
                    await sink.write(batch, after + 1)
                    if len(batch) == 1:
                        await sink.heartbeat()
                await deliver(cursor, sink, heartbeat)
                sink.end()
            except StreamClosedError as error:
                raise ClientLeft("The client left.") from error


class ModelHandler(InferenceHandler):
    """POST /api/models/{name}, and the addresses that are one name: /api/claude4, /api/nova."""

    address = "/api/models/{name}"

    async def post(self, name: str) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        asked = self.read(parse_inference)
        if asked.resumable:
            raise InvalidRequest("resumable: only a streaming answer can be resumed; see /api/stream/{model_name}.")
        self.check_model(name)
        stream = self.services.streams.open(asked.request, [name], owner=self.owner, kept=False)
        self.send((await self.result(stream)).envelope, kind)

    def check_model(self, name: str) -> None:
        """Raises UnknownModel for a name that this address does not answer for."""


class EmdHandler(ModelHandler):
    """POST /api/emd/{model_key}: only models of the provider `emd`."""

    address = "/api/emd/{model_key}"

    def check_model(self, name: str) -> None:
        preset = self.services.runtime.models.get(name)
        if preset is None or preset.provider != "emd":
            raise UnknownModel(f"No preset defines an EMD model {name!r}; GET /api/models lists all models.")


class StreamHandler(InferenceHandler):
    """POST /api/stream/{model_name}: tokens as they come."""

    address = "/api/stream/{model_name}"

    async def post(self, name: str) -> None:
        kind = self.negotiate(wire.SSE, wire.NDJSON, wire.MSGPACK_EVENTS, wire.TEXT)
        asked = self.read(parse_inference)
        stream = self.services.streams.open(asked.request, [name], owner=self.owner, resumable=asked.resumable)
        await self.send_events(stream, kind)


class MultiInferenceHandler(InferenceHandler):
    """POST /api/multi-inference: all models at once, as one body or as events."""

    address = "/api/multi-inference"

    async def post(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK, wire.SSE, wire.NDJSON, wire.MSGPACK_EVENTS)
        asked = self.read(parse_multi_inference)
        streaming = kind in wire.ENCODERS
        if asked.resumable and not streaming:
            raise InvalidRequest(f"resumable: only a streaming answer can be resumed; Accept {wire.SSE} asks for one.")
        stream = self.services.streams.open(
            asked.request, asked.models, owner=self.owner, resumable=asked.resumable, kept=streaming
        )
        if streaming:
            await self.send_events(stream, kind, commit=True)
        else:
            await self._send_results(stream, asked.request, kind)

    async def _send_results(self, stream: Stream, request: InferenceRequest, kind: str) -> None:
        self.stream = stream
        with stream.attach() as self.cursor:
            found = await outcomes(self.cursor)
        body = {
            "time": datetime.now(UTC).isoformat(),
            "request": self.summary,
            "results": [_describe_outcome(found[model], request.received) for model in stream.models],
            "metadata": {
                "request_id": self.request_id,
                "duration_ms": _milliseconds(time.monotonic() - request.received),
            },
        }
        self.send(body, kind)


def _describe_outcome(outcome: Result | Failure, received: float) -> dict[str, Any]:
    """One model's part of the answer that compares several."""
    if isinstance(outcome, Result):
        envelope = outcome.envelope
        return {
            "model": outcome.model,
            "status": "success",
            "response": envelope["response"],
            "duration_ms": envelope["metadata"]["duration_ms"],
        }
    return {
        "model": outcome.model,
        "status": "not_deployed" if isinstance(outcome.error, ModelNotDeployed) else "error",
        **describe(outcome.error),
        "duration_ms": _milliseconds(outcome.at - received),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
