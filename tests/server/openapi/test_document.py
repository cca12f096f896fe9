"""The OpenAPI document: valid, complete, and consistent with the route table and with real responses."""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from pipeline.messages import Result
from server.app import ROUTES
from server.config import VERSION
from server.inference.encoders import to_event, to_json
from server.openapi.document import encode_document
from server.openapi.route import METHODS
from tests.async_tests import async_test
from tests.pipeline.factories import make_envelope
from tests.running_server import LiveStream, running_server, scripted_model
from tests.server.jobs.log_jobs import open_written_job

ROOT = Path(__file__).parents[3]
DOCUMENT = json.loads(encode_document(ROUTES))


def test_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_address_of_api_is_described() -> None:
    undescribed = {route.path for route in ROUTES if route.path not in DOCUMENT["paths"]}
    assert undescribed == {"/", "/static/{path}", "/api/docs/docs.js", "/api/docs/docs.css"}  # files for browsers


def test_described_methods_match_handlers() -> None:
    for route in ROUTES:
        described = set(DOCUMENT["paths"].get(route.path, ()))
        handled = {method for method in METHODS if _has_method(route.handler, method)}
        assert route.path.startswith("/ws") or not described or described == handled, route.path


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
EVENT = {"$ref": "#/components/schemas/Event"}
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
    assert find_schema_errors(response.json, described[response.headers["Content-Type"]]["schema"]) == []


@async_test
async def test_job_response_matches_described_schema(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_written_job(server) as job:
        await job.writer.write(b"hello\n")
        answers = {
            path: await server.get(path.replace("{id}", job.id))
            for path in DOCUMENT["paths"]
            if path.startswith("/api/hyperpod/") and "get" in DOCUMENT["paths"][path]
        }
    assert len(answers) == 5
    for path, answer in answers.items():
        described = DOCUMENT["paths"][path]["get"]["responses"][str(answer.status)]["content"]
        assert find_schema_errors(answer.json, described["application/json"]["schema"]) == [], path


@async_test
async def test_stream_event_matches_described_schema(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, models={"m": scripted_model("echo"), "bad": scripted_model("say:a; fail:model_error")}
    ) as server:
        streams = [await server.post(f"/api/stream/{name}", REQUEST) for name in ("m", "bad")]
    for event in [event for stream in streams for event in stream.events]:
        assert find_schema_errors(event, EVENT) == []


@async_test
async def test_stream_event_of_tool_call_matches_described_schema(tmp_path: Path) -> None:
    """Only `/v1` requests have tools; their streams can be read at `/api/streams` while they run."""
    chat = {**CHAT, "stream": True, "tools": [{"type": "function", "function": TOOL}]}
    async with (
        running_server(tmp_path, models={"m": scripted_model('call:t,{"a": 1}; hang')}) as server,
        server.open_stream("/v1/chat/completions", chat) as answer,
        server.http.get(f"{server.url}/api/streams/{answer.response.headers['X-Stream-Id']}") as resumed,
    ):
        stream = LiveStream(resumed)
        events = [await stream.next_event(), await stream.next_event()]
        assert (await server.request("DELETE", resumed.url.path)).status == 204
        events += await stream.remaining_events()
    assert events[1]["tool_call"]["name"] == "t"
    assert [find_schema_errors(event, EVENT) for event in events] == [[]] * len(events)


def test_result_event_of_tool_call_matches_described_schema() -> None:
    envelope = make_envelope()
    envelope["response"]["stop_reason"] = "tool_use"
    event = json.loads(to_json(to_event(Result("m", envelope), 3, "m")))
    assert find_schema_errors(event, EVENT) == []


def find_schema_errors(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Why the value is not what the schema describes: a field that is not described is an error, too."""
    closed = _close_objects({**schema, "components": DOCUMENT["components"]})
    return [error.message for error in Draft202012Validator(closed).iter_errors(value)]


def _close_objects(schema: Any) -> Any:
    """The schema, with no properties but those that it lists."""
    if isinstance(schema, list):
        return [_close_objects(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close_objects(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed


def _has_method(handler: Any, method: str) -> bool:
    return any(method in kind.__dict__ for kind in handler.__mro__ if kind.__module__.startswith("server."))
