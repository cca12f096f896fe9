"""A Converse request against botocore's model of it, and against what each model refuses."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import botocore.session

from tests.aws.models import Model

MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
PYTHON = {"string": str, "boolean": bool, "integer": int, "long": int, "list": list, "map": dict, "blob": str}
NAMES = {"list": "JSONArray", "map": "JSONObject", "structure": "JSONObject", "integer": "Integer", "long": "Integer"}
AGAIN = "and try again."
FAULT = "The model returned the following errors: "


@cache
def _operation(name: str) -> Any:
    return botocore.session.Session().get_service_model("bedrock-runtime").operation_model(name)


def fault(operation: str, body: Any, model: Model) -> str | None:
    """What is wrong with this request, as Bedrock says it."""
    shape = _operation(operation).input_shape
    malformed = next(_structure(shape, body, "#"), None)
    if malformed is not None:
        return f"Malformed input request: {malformed}, please reformat your input and try again."
    return next(_refused(body, model), None)


# --- what the service refuses ----------------------------------------------------------------------


def _check(shape: Any, value: Any, at: str) -> Iterator[str]:
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return
    if kind == "structure":
        yield from _structure(shape, value, at)
    elif kind in {"float", "double"}:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield _expected(at, "Number", value)
            return
    elif not _is(kind, value):
        yield _expected(at, NAMES.get(kind, kind.capitalize()), value)
        return
    elif kind == "list":
        for index, item in enumerate(value):
            yield from _check(shape.member, item, f"{at}/{index}")
    elif kind == "map":
        for key, item in value.items():
            yield from _check(shape.value, item, f"{at}/{key}")
    elif kind == "blob":
        if _decoded(value) is None:
            yield f"{at}: string is not valid base64"
    elif kind == "string" and shape.enum and value not in shape.enum:
        yield f"{at}: {value} is not a valid enum value"
    yield from _bounds(shape, value, at)


def _is(kind: str, value: Any) -> bool:
    return isinstance(value, PYTHON[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _structure(shape: Any, value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _expected(at, "JSONObject", value)
        return
    members = {
        member.serialization.get("name", name): (name, member)
        for name, member in shape.members.items()
        if "location" not in member.serialization
    }
    yield from (
        f"{at}: required key [{key}] not found"
        for key, (name, _) in members.items()
        if name in shape.required_members and key not in value
    )
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield f"{at}: exactly one key is expected, found {len(value)}"
    for key, item in value.items():
        if key not in members:
            yield f"{at}: extraneous key [{key}] is not permitted"
        else:
            yield from _check(members[key][1], item, f"{at}/{key}")


def _bounds(shape: Any, value: Any, at: str) -> Iterator[str]:
    is_number = isinstance(value, int | float)
    size = value if is_number else len(value)
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    what = "value" if is_number else "length"
    if shape.type_name == "structure" or (shape.type_name == "blob" and not least):
        return
    if least is not None and size < least:
        yield f"{at}: expected minimum {what}: {least}, found: {size}"
    if most is not None and size > most:
        yield f"{at}: expected maximum {what}: {most}, found: {size}"


def _expected(at: str, kind: str, value: Any) -> str:
    found = {str: "String", bool: "Boolean", int: "Integer", float: "Number", list: "JSONArray", dict: "JSONObject"}
    return f"{at}: expected type: {kind}, found: {found.get(type(value), 'Null')}"


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


# --- what the model refuses ------------------------------------------------------------------------


def _refused(body: Any, model: Model) -> Iterator[str]:
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
    yield from _parameters(body.get("inferenceConfig") or {}, model)
    blocks = [
        (f"messages.{i}.content.{j}", block)
        for i, message in enumerate(messages)
        for j, block in enumerate(message["content"])
    ]
    for at, block in blocks:
        if "text" in block and not block["text"].strip():
            yield f"The text field in the ContentBlock object at {at} is blank. Add text to the text field, {AGAIN}"
    yield from _media(blocks, model)


def _parameters(given: dict[str, Any], model: Model) -> Iterator[str]:
    sampling = [name for key, name in (("temperature", "temperature"), ("topP", "top_p")) if key in given]
    if sampling and model.sampling == "none":
        yield f"{FAULT}`{sampling[0]}` is deprecated for this model."
    if len(sampling) > 1 and model.sampling == "one":
        yield (f"{FAULT}`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if given.get("maxTokens", 0) > model.max_tokens:
        yield (
            f"The maximum tokens you requested exceeds the model limit of {model.max_tokens}. Try again with a maximum"
            f" tokens value that is lower than {model.max_tokens}."
        )


def _media(blocks: list[tuple[str, Any]], model: Model) -> Iterator[str]:
    images = [(at, block["image"]) for at, block in blocks if "image" in block]
    videos = [block["video"] for _, block in blocks if "video" in block]
    if images and not model.images:
        yield "This model doesn't support the image content block that you provided."
    if videos and not model.video:
        yield "This model doesn't support the video content block that you provided."
    if len(images) > model.images:
        yield f"{FAULT}too many images: {len(images)} > {model.images}"
    if len(videos) > 1:
        yield f"{FAULT}at most one video is supported per request"
    for at, image in images:
        yield from _image(at, image, model.image_bytes)
    media = [_decoded(block["source"].get("bytes", "")) or b"" for block in [*(i for _, i in images), *videos]]
    if sum(map(len, media)) > 25_000_000:
        yield f"{FAULT}the payload of a request must be under 25 MB"


def _image(at: str, image: Any, limit: int) -> Iterator[str]:
    at = f"{FAULT}{at}.image.source.base64"
    data = _decoded(image["source"].get("bytes", "")) or b""
    if len(data) > limit:
        yield f"{at}: image exceeds the maximum: {len(data)} bytes > {limit} bytes"
    kind = next((kind for kind, start in MAGIC.items() if data.startswith(start)), None)
    if "bytes" in image["source"] and kind is None:
        yield f"{at}: Could not process image"
    if kind is not None and kind != image["format"]:
        yield (
            f"{at}: The image was specified using the image/{image['format']} media type, but the image appears to be"
            f" a image/{kind} image"
        )
