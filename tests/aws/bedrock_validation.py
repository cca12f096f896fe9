"""Validation of a Converse request: by botocore's service model, and by the rules of each Bedrock model."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import botocore.session

from tests.aws.bedrock_models import BedrockModel

MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
PYTHON_TYPES = {"string": str, "boolean": bool, "integer": int, "long": int, "list": list, "map": dict, "blob": str}
JSON_TYPE_NAMES = {
    "list": "JSONArray",
    "map": "JSONObject",
    "structure": "JSONObject",
    "integer": "Integer",
    "long": "Integer",
}
TRY_AGAIN = "and try again."
MODEL_ERROR_PREFIX = "The model returned the following errors: "


@cache
def _operation(name: str) -> Any:
    return botocore.session.Session().get_service_model("bedrock-runtime").operation_model(name)


def find_fault(operation: str, body: Any, model: BedrockModel) -> str | None:
    """The first problem of the request, in Bedrock's words; None if it is valid."""
    shape = _operation(operation).input_shape
    malformed = next(_check_structure(shape, body, "#"), None)
    if malformed is not None:
        return f"Malformed input request: {malformed}, please reformat your input and try again."
    return next(_check_model_rules(body, model), None)


# --- rules of the service ----------------------------------------------------------------------


def _check_value(shape: Any, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return
    if kind == "structure":
        yield from _check_structure(shape, value, path)
    elif kind in {"float", "double"}:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield _wrong_type(path, "Number", value)
            return
    elif not _has_type(kind, value):
        yield _wrong_type(path, JSON_TYPE_NAMES.get(kind, kind.capitalize()), value)
        return
    elif kind == "list":
        for index, item in enumerate(value):
            yield from _check_value(shape.member, item, f"{path}/{index}")
    elif kind == "map":
        for key, item in value.items():
            yield from _check_value(shape.value, item, f"{path}/{key}")
    elif kind == "blob":
        if _decode_base64(value) is None:
            yield f"{path}: string is not valid base64"
    elif kind == "string" and shape.enum and value not in shape.enum:
        yield f"{path}: {value} is not a valid enum value"
    yield from _check_bounds(shape, value, path)


def _has_type(kind: str, value: Any) -> bool:
    return isinstance(value, PYTHON_TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _check_structure(shape: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _wrong_type(path, "JSONObject", value)
        return
    members = {
        member.serialization.get("name", name): (name, member)
        for name, member in shape.members.items()
        if "location" not in member.serialization
    }
    yield from (
        f"{path}: required key [{key}] not found"
        for key, (name, _) in members.items()
        if name in shape.required_members and key not in value
    )
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield f"{path}: exactly one key is expected, found {len(value)}"
    for key, item in value.items():
        if key not in members:
            yield f"{path}: extraneous key [{key}] is not permitted"
        else:
            yield from _check_value(members[key][1], item, f"{path}/{key}")


def _check_bounds(shape: Any, value: Any, path: str) -> Iterator[str]:
    is_number = isinstance(value, int | float)
    size = value if is_number else len(value)
    minimum, maximum = shape.metadata.get("min"), shape.metadata.get("max")
    measure = "value" if is_number else "length"
    if shape.type_name == "structure" or (shape.type_name == "blob" and not minimum):
        return
    if minimum is not None and size < minimum:
        yield f"{path}: expected minimum {measure}: {minimum}, found: {size}"
    if maximum is not None and size > maximum:
        yield f"{path}: expected maximum {measure}: {maximum}, found: {size}"


def _wrong_type(path: str, kind: str, value: Any) -> str:
    json_types = {
        str: "String",
        bool: "Boolean",
        int: "Integer",
        float: "Number",
        list: "JSONArray",
        dict: "JSONObject",
    }
    return f"{path}: expected type: {kind}, found: {json_types.get(type(value), 'Null')}"


def _decode_base64(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


# --- rules of the model ------------------------------------------------------------------------


def _check_model_rules(body: Any, model: BedrockModel) -> Iterator[str]:
    messages = body.get("messages") or []
    if not messages or messages[0]["role"] != "user":
        yield (
            "A conversation must start with a user message. Try again with a conversation that starts with a user"
            " message."
        )
    for before, after in pairwise(messages):
        if before["role"] == after["role"]:
            yield (
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates"
                " between user and assistant roles and try again."
            )
    yield from _check_parameters(body.get("inferenceConfig") or {}, model)
    blocks = [
        (f"messages.{i}.content.{j}", block)
        for i, message in enumerate(messages)
        for j, block in enumerate(message["content"])
    ]
    for path, block in blocks:
        if "text" in block and not block["text"].strip():
            yield (
                f"The text field in the ContentBlock object at {path} is blank. Add text to the text field, {TRY_AGAIN}"
            )
    yield from _check_media(blocks, model)


def _check_parameters(inference_config: dict[str, Any], model: BedrockModel) -> Iterator[str]:
    sampling = [name for key, name in (("temperature", "temperature"), ("topP", "top_p")) if key in inference_config]
    if sampling and model.sampling == "none":
        yield f"{MODEL_ERROR_PREFIX}`{sampling[0]}` is deprecated for this model."
    if len(sampling) > 1 and model.sampling == "one":
        yield (
            f"{MODEL_ERROR_PREFIX}`temperature` and `top_p` cannot both be specified for this model."
            " Please use only one."
        )
    if inference_config.get("maxTokens", 0) > model.max_tokens:
        yield (
            f"The maximum tokens you requested exceeds the model limit of {model.max_tokens}. Try again with a maximum"
            f" tokens value that is lower than {model.max_tokens}."
        )


def _check_media(blocks: list[tuple[str, Any]], model: BedrockModel) -> Iterator[str]:
    images = [(path, block["image"]) for path, block in blocks if "image" in block]
    videos = [block["video"] for _, block in blocks if "video" in block]
    if images and not model.images:
        yield "This model doesn't support the image content block that you provided."
    if videos and not model.video:
        yield "This model doesn't support the video content block that you provided."
    if len(images) > model.images:
        yield f"{MODEL_ERROR_PREFIX}too many images: {len(images)} > {model.images}"
    if len(videos) > 1:
        yield f"{MODEL_ERROR_PREFIX}at most one video is supported per request"
    for path, image in images:
        yield from _check_image(path, image, model.image_bytes)
    media = [_decode_base64(block["source"].get("bytes", "")) or b"" for block in [*(i for _, i in images), *videos]]
    if sum(map(len, media)) > 25_000_000:
        yield f"{MODEL_ERROR_PREFIX}the payload of a request must be under 25 MB"


def _check_image(path: str, image: Any, limit: int) -> Iterator[str]:
    path = f"{MODEL_ERROR_PREFIX}{path}.image.source.base64"
    data = _decode_base64(image["source"].get("bytes", "")) or b""
    if len(data) > limit:
        yield f"{path}: image exceeds the maximum: {len(data)} bytes > {limit} bytes"
    kind = next((kind for kind, start in MAGIC.items() if data.startswith(start)), None)
    if "bytes" in image["source"] and kind is None:
        yield f"{path}: Could not process image"
    if kind is not None and kind != image["format"]:
        yield (
            f"{path}: The image was specified using the image/{image['format']} media type, but the image appears to be"
            f" a image/{kind} image"
        )
