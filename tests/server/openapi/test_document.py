"""The description of the API: valid, whole, and held to the route table and to what is answered."""

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

from server.app import ROUTES, patterns_of
from server.openapi import hyperpod, operations
from server.openapi.document import VERSION, all_operations, anonymous, describe, encoded, served_paths
from tests.aio import asynchronous
from tests.serving import says, serving

ROOT = Path(__file__).parents[3]
PATTERNS = patterns_of(ROUTES)
PAGES = ("/static/", "/api/docs/")  # what browsers fetch beside the addresses of the API
DOCUMENT = json.loads(encoded(PATTERNS))


def test_it_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_it_is_valid_with_the_addresses_of_deploy_jobs_too() -> None:
    paths = [re.sub(r"{\w+}", "([^/]+)", one.path) for one in all_operations()]
    whole = json.loads(json.dumps(describe(paths)))
    assert list(OpenAPIV31SpecValidator(whole).iter_errors()) == []
    assert set(whole["paths"]) == {one.path for one in all_operations()}


def test_every_address_is_described() -> None:
    described = {anonymous(one.path) for one in all_operations()}
    served = {path for path in served_paths(PATTERNS) if path != "/" and not path.startswith(PAGES)}
    assert served - described == set()


def test_nothing_is_described_that_is_not_served() -> None:
    served = served_paths(PATTERNS)
    assert {one.path for one in operations.OPERATIONS if anonymous(one.path) not in served} == set()


def test_the_addresses_of_deploy_jobs_are_described_as_they_are_served() -> None:
    served, described = served_paths(PATTERNS), {anonymous(one.path) for one in hyperpod.OPERATIONS}
    there = {path for path in served if "/hyperpod/" in path}
    if not there:
        pytest.skip("this server has none yet")
    assert there == described


def test_every_operation_has_the_methods_that_its_handler_takes() -> None:
    for rule, pattern in zip(ROUTES, PATTERNS, strict=True):
        for path in served_paths([pattern]):
            described = {one.method for one in all_operations() if anonymous(one.path) == path}
            taken = {method for method in ("get", "post", "delete") if _takes(rule.target, method)}
            assert path.startswith("/ws") or not described or described == taken, path


def test_a_body_is_described_by_the_type_that_checks_it() -> None:
    body = DOCUMENT["paths"]["/api/models/{name}"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/InferenceBody"}
    schema = DOCUMENT["components"]["schemas"]["InferenceBody"]
    assert (schema["required"], schema["additionalProperties"]) == (["text"], False)
    assert schema["properties"]["max_tokens"]["minimum"] == 1


def test_its_version_is_the_packages() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == VERSION


ASKED = {"text": "Hi"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
TOOL = {"name": "t", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("method", "address", "path", "body"),
    [
        ("post", "/api/models/{name}", "/api/models/m", ASKED),
        ("post", "/api/models/{name}", "/api/models/gone", ASKED),
        ("post", "/api/models/{name}", "/api/models/m", {}),
        ("post", "/api/models/{name}", "/api/models/throttled", ASKED),
        ("post", "/api/multi-inference", "/api/multi-inference", {**ASKED, "models": ["m", "throttled", "down"]}),
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
@asynchronous
async def test_an_answer_is_what_the_description_says(
    tmp_path: Path, method: str, address: str, path: str, body: Mapping[str, Any] | None
) -> None:
    models = {
        "m": says("echo; usage:3,4"),
        "calls": says('call:t,{"a": 1}'),
        "throttled": says("fail:rate_limited"),
        "down": says("fail:model_not_deployed"),
    }
    async with serving(tmp_path, models=models) as server:
        answer = await server.request(method.upper(), path, json=body)
    described = DOCUMENT["paths"][address][method]["responses"][str(answer.status)]["content"]
    schema = described[answer.headers["Content-Type"]]["schema"]
    errors = Draft202012Validator({**schema, "components": DOCUMENT["components"]}).iter_errors(answer.json)
    assert [error.message for error in errors] == []


@asynchronous
async def test_an_event_is_what_the_description_says(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo"), "bad": says("say:a; fail:model_error")}) as server:
        streams = [await server.post(f"/api/stream/{name}", ASKED) for name in ("m", "bad")]
    schema = {"$ref": "#/components/schemas/Event", "components": DOCUMENT["components"]}
    for event in [event for stream in streams for event in stream.events]:
        assert [error.message for error in Draft202012Validator(schema).iter_errors(event)] == []


def _takes(handler: Any, method: str) -> bool:
    return any(method in kind.__dict__ for kind in handler.__mro__ if kind.__module__.startswith("server."))
