"""Decodes and validates bodies, and makes an InferenceRequest of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgpack
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame
from pipeline.messages import InferenceRequest, Message, Parameters
from pipeline.presets.schema import PositiveInt, SchemaError, validate
from server.errors import UnsupportedMediaType
from server.inference.encoders import JSON, MSGPACK

T = TypeVar("T")

Fraction = Annotated[float, Meta(ge=0, le=1)]
EncodedPicture = Annotated[
    Any,
    Meta(
        description="A picture or video: base64 or a data: URI; bytes in MessagePack",
        extra_json_schema={"type": "string", "contentEncoding": "base64"},
    ),
]


class InferenceBody(Struct, forbid_unknown_fields=True, rename={"media_type": "mediaType"}):
    """The fields of a request for inference. `frames` are strings (base64, data: URI) or bytes."""

    text: str
    frames: list[EncodedPicture] | UnsetType = UNSET
    media: list[EncodedPicture] | UnsetType = UNSET
    media_type: Literal["image", "video"] = "image"
    max_tokens: PositiveInt = 1024
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.1
    system: str | None = None
    top_p: Fraction | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    resumable: bool = False


class MultiInferenceBody(InferenceBody, forbid_unknown_fields=True, kw_only=True, rename={"media_type": "mediaType"}):
    models: Annotated[list[str], Meta(min_length=1, max_length=16)]


def decode_body(content_type: str, body: bytes | bytearray) -> Any:
    """The decoded value of a body. Raises UnsupportedMediaType, InvalidRequest."""
    if content_type not in (JSON, MSGPACK):
        raise UnsupportedMediaType(f"Content-Type has to be {JSON} or {MSGPACK}.")
    if not body:
        raise InvalidRequest("The body is empty; expected a mapping of fields.")
    try:
        return msgspec.json.decode(body) if content_type == JSON else msgpack.unpackb(body)
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deep.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body holds text that is not UTF-8.") from error
    except msgspec.ValidationError as error:
        raise InvalidRequest("A number in the body is out of range.") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidRequest("The body is not one valid MessagePack value.") from error


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request for inference, and its options for the stream. `models` is empty where the path names the model."""

    request: InferenceRequest
    resumable: bool
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request's id, its owner, and when its last byte was received (monotonic seconds)."""

    request_id: str
    owner: str
    received_at: float


def parse_inference(value: Any, context: RequestContext, max_frames: int) -> ParsedRequest:
    """Parse a request for the model that its path names. Raises InvalidRequest."""
    body = check_body(value, InferenceBody)
    return ParsedRequest(_to_request(body, context, max_frames), body.resumable)


def parse_multi_inference(value: Any, context: RequestContext, max_frames: int) -> ParsedRequest:
    """Parse a request that names its models. Raises InvalidRequest."""
    body = check_body(value, MultiInferenceBody)
    if len(set(body.models)) < len(body.models):
        raise InvalidRequest("models: names one model twice; each may be named once.")
    return ParsedRequest(_to_request(body, context, max_frames), body.resumable, tuple(body.models))


def check_body(value: Any, expected: type[T]) -> T:
    """Validate `value` as a struct of type `expected`. Raises InvalidRequest."""
    try:
        return validate(value, expected)
    except SchemaError as error:
        raise InvalidRequest(f"{error}.") from error


def _to_request(body: InferenceBody, context: RequestContext, max_frames: int) -> InferenceRequest:
    if body.frames is not UNSET and body.media is not UNSET:
        raise InvalidRequest("media: another name for frames; expected one of the two, not both.")
    name, frames = ("frames", body.frames) if body.media is UNSET else ("media", body.media)
    encoded = _check_frames([] if frames is UNSET else frames, name, max_frames)
    if not body.text and not encoded:
        raise InvalidRequest("text: expected a text; it may be empty only where there are frames.")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return InferenceRequest(
        (Message("user", (*encoded, body.text)),),
        Parameters(body.max_tokens, body.temperature, body.top_p, stop),
        body.system,
        body.media_type,
        context.request_id,
        context.owner,
        context.received_at,
    )


def _check_frames(frames: list[Any], name: str, max_frames: int) -> list[EncodedFrame]:
    if len(frames) > max_frames:
        raise InvalidRequest(f"{name}: {len(frames)} frames; this server takes at most {max_frames} in one request.")
    for index, frame in enumerate(frames):
        if not isinstance(frame, str | bytes):
            raise InvalidRequest(f"{name}[{index}]: expected base64, a data: URI, or bytes in MessagePack.")
    return [EncodedFrame(frame, f"{name}[{index}]") for index, frame in enumerate(frames)]
