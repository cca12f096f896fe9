"""The OpenAPI document: valid, complete, and consistent with the route table and with real responses."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from server.app import ROUTES, route_patterns
from server.config import VERSION
from server.openapi import hyperpod, operations
from server.openapi.document import (
    all_operations,
    build_document,
    encode_document,
    served_paths,
    strip_parameter_names,
)
from tests.async_tests import async_test
from tests.running_server import running_server, scripted_model

ROOT = Path(__file__).parents[3]
PATTERNS = route_patterns(ROUTES)
PAGES = ("/static/", "/api/docs/")  # files for browsers, not part of the API
DOCUMENT = json.loads(encode_document(PATTERNS))


def test_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_document_of_all_operations_is_valid_openapi() -> None:
    paths = [re.sub(r"{\w+}", "([^/]+)", operation.path) for operation in all_operations()]
    document = json.loads(json.dumps(build_document(paths)))
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert set(document["paths"]) == {operation.path for operation in all_operations()}


def test_every_route_is_described() -> None:
    described = {strip_parameter_names(operation.path) for operation in all_operations()}
    served = {path for path in served_paths(PATTERNS) if path != "/" and not path.startswith(PAGES)}
    assert served - described == set()


def test_every_described_path_is_served() -> None:
    served = served_paths(PATTERNS)
    assert {
        operation.path for operation in operations.OPERATIONS if strip_parameter_names(operation.path) not in served
    } == set()


def test_hyperpod_paths_are_described_as_served() -> None:
    served, described = (
        served_paths(PATTERNS),
        {strip_parameter_names(operation.path) for operation in hyperpod.OPERATIONS},
    )
    hyperpod_paths = {path for path in served if "/hyperpod/" in path}
    if not hyperpod_paths:
        pytest.skip("this server has none yet")
    assert hyperpod_paths == described


def test_described_methods_match_handlers() -> None:
    for rule, pattern in zip(ROUTES, PATTERNS, strict=True):
        for path in served_paths([pattern]):
            described = {
                operation.method for operation in all_operations() if strip_parameter_names(operation.path) == path
            }
            handled = {method for method in ("get", "post", "delete") if _has_method(rule.target, method)}
            assert path.startswith("/ws") or not described or described == handled, path


def test_request_body_schema_is_validating_type() -> None:
    body = DOCUMENT["paths"]["/api/models/{name}"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/InferenceBody"}
    schema = DOCUMENT["components"]["schemas"]["InferenceBody"]
    assert (schema["required"], schema["additionalProperties"]) == (["text"], False)
    assert schema["properties"]["max_tokens"]["minimum"] == 1


def test_document_version_is_package_version() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == VERSION


REQUEST = {"text": "Hi"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
TOOL = {"name": "t", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("method", "address", "path", "body"),
    [
        ("post", "/api/models/{name}", "/api/models/m", REQUEST),
        ("post", "/api/models/{name}", "/api/models/gone", REQUEST),
        ("post", "/api/models/{name}", "/api/models/m", {}),
        ("post", "/api/models/{name}", "/api/models/throttled", REQUEST),
        ("post", "/api/multi-inference", "/api/multi-inference", {**REQUEST, "models": ["m", "throttled", "down"]}),
        ("get", "/api/models", "/api/models", None),
        ("get", "/api/emd/models", "/api/emd/models", None),
        ("get", "/api/emd/status", "/api/emd/status", None),
        ("post", "/v1/chat/completions", "/v1/chat/completions", CHAT),
        (
            "post",
            "/v1/chat/completions",
            "/v1/chat/completions",
            {**CHAT, "model": "calls", "tools": [{"type": "function", "function": TOOL}]},
        ),
        ("post", "/v1/chat/completions", "/v1/chat/completions", {**CHAT, "model": "throttled"}),
        ("get", "/v1/models", "/v1/models", None),
        ("get", "/v1/models/{id}", "/v1/models/m", None),
        ("get", "/v1/models/{id}", "/v1/models/gone", None),
        ("post", "/v1/messages", "/v1/messages", CHAT),
        (
            "post",
            "/v1/messages",
            "/v1/messages",
            {**CHAT, "model": "calls", "tools": [{"name": "t", "input_schema": {"type": "object"}}]},
        ),
        ("post", "/v1/messages", "/v1/messages", {**CHAT, "messages": 1}),
        ("get", "/healthz", "/healthz", None),
        ("get", "/ws", "/ws", None),
    ],
)
@async_test
async def test_response_matches_described_schema(
    tmp_path: Path, method: str, address: str, path: str, body: Mapping[str, Any] | None
) -> None:
    models = {
        "m": scripted_model("echo; usage:3,4"),
        "calls": scripted_model('call:t,{"a": 1}'),
        "throttled": scripted_model("fail:rate_limited"),
        "down": scripted_model("fail:model_not_deployed"),
    }
    async with running_server(tmp_path, models=models) as server:
        response = await server.request(method.upper(), path, json=body)
    described = DOCUMENT["paths"][address][method]["responses"][str(response.status)]["content"]
    schema = described[response.headers["Content-Type"]]["schema"]
    errors = Draft202012Validator({**schema, "components": DOCUMENT["components"]}).iter_errors(response.json)
    assert [error.message for error in errors] == []


@async_test
async def test_stream_event_matches_described_schema(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, models={"m": scripted_model("echo"), "bad": scripted_model("say:a; fail:model_error")}
    ) as server:
        streams = [await server.post(f"/api/stream/{name}", REQUEST) for name in ("m", "bad")]
    schema = {"$ref": "#/components/schemas/Event", "components": DOCUMENT["components"]}
    for event in [event for stream in streams for event in stream.events]:
        assert [error.message for error in Draft202012Validator(schema).iter_errors(event)] == []


def _has_method(handler: Any, method: str) -> bool:
    return any(method in kind.__dict__ for kind in handler.__mro__ if kind.__module__.startswith("server."))
