"""docs/API.md lists exactly the routes, fields, events and WebSocket ops of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints, is_typeddict

import pytest
import yaml
from tornado.web import RequestHandler

from infraforge_runner.infraforge.cdk import Phase
from infraforge_runner.infraforge.plan import Plan
from infraforge_runner.jobs.model import JobDescription, JobResult, JobState
from pipeline.envelope import Envelope
from server.app import ROUTES
from server.handlers import hyperpod, socket
from server.inference import encoders
from server.inference.parsing import MultiInferenceBody
from server.inference.response_types import FailedModelResult, NotDeployed, StreamEvent, Succeeded
from server.openapi.route import METHODS
from server.websocket.subscriptions import TOPICS
from tests.async_tests import async_test
from tests.docs.pages import code_spans, find_table
from tests.docs.test_presets import is_documented_default, list_keys
from tests.jobs import submit, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.jobs.log_jobs import open_written_job
from tests.sockets import WebSocketClient, connect_websocket

ROUTE_TABLES = [
    find_table("docs/API.md", "method", "Models and answers"),
    find_table("docs/API.md", "method", "Deploy jobs"),
    find_table("docs/API.md", "method", "WebSockets"),
    find_table("docs/API.md", "method", "The server itself"),
]


def handler_methods(handler: type[RequestHandler]) -> list[str]:
    return [name.upper() for name in METHODS if getattr(handler, name) is not getattr(RequestHandler, name)]


def test_api_docs_list_exactly_the_routes_and_methods() -> None:
    documented = {(row[0].strip("`"), row[1].strip("`")) for page in ROUTE_TABLES for row in page.rows}
    assert documented == {(method, route.path) for route in ROUTES for method in handler_methods(route.handler)}


def test_api_docs_list_websocket_routes_under_websockets() -> None:
    documented = {path for path in ROUTE_TABLES[2].code_names(1) if path.startswith("/")}
    assert documented == {route.path for route in ROUTES if issubclass(route.handler, socket.SocketHandler)}


# --- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "body"),
    [
        (find_table("docs/API.md", "field"), MultiInferenceBody),
        (find_table("docs/API.md", "field of a request"), hyperpod.JobRequestBody),
    ],
)
def test_api_docs_list_request_fields_with_defaults(page: Any, body: Any) -> None:
    documented, keys = dict(zip(page.code_names(), page.column(1), strict=True)), dict(list_keys(body))
    assert documented.keys() == keys.keys()
    by_option = {"dry_run": "`--dry-run`", "frames": "`[]`"}  # defaults that are set later
    differing = [
        name
        for name, cell in documented.items()
        if cell != by_option.get(name) and not is_documented_default(cell, keys[name])
    ]
    assert differing == []


def dotted_fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of a type's fields; a list counts as one field."""
    for name, of in get_type_hints(kind).items():
        nested = is_typeddict(of)
        yield from dotted_fields(of, f"{prefix}{name}.") if nested else [prefix + name]


def test_api_docs_list_response_fields() -> None:
    assert find_table("docs/API.md", "field of an answer").code_names() == [*dotted_fields(Envelope)]


def test_api_docs_list_result_statuses() -> None:
    kinds = (Succeeded, FailedModelResult, NotDeployed)
    assert find_table("docs/API.md", "status of a result").code_names() == [
        kind.__struct_config__.tag for kind in kinds
    ]


def test_api_docs_list_job_fields_and_enum_values() -> None:
    page = find_table("docs/API.md", "field of a job")
    result = [f"result.{field}" for field in JobResult.__annotations__]
    assert set(page.code_names()) == {*JobDescription.__annotations__, *result}
    cells = dict(zip(page.code_names(), page.column(1), strict=True))
    assert code_spans(cells["status"]) == [*get_args(JobState)]
    assert code_spans(cells["phase"]) == [*get_args(Phase)]
    assert code_spans(cells["result.plan"]) == [*Plan.__struct_fields__]


# --- streams ---------------------------------------------------------------------------------------


def test_api_docs_list_stream_types_default_first() -> None:
    assert find_table("docs/API.md", "`Accept`").code_names()[: len(encoders.EVENT_ENCODERS)] == [
        *encoders.EVENT_ENCODERS
    ]
    assert "default" in find_table("docs/API.md", "`Accept`").rows[0][1]


def test_api_docs_list_events_with_fields() -> None:
    page = find_table("docs/API.md", "event")
    documented = {
        name: set(code_spans(carries))
        for (name,), carries in zip(map(code_spans, page.column()), page.column(1), strict=True)
    }
    kinds = get_args(StreamEvent)
    assert documented == {kind.__struct_config__.tag: {*kind.__struct_fields__} for kind in kinds}


# --- sockets ---------------------------------------------------------------------------------------


def test_api_docs_list_subprotocols_default_first() -> None:
    assert find_table("docs/API.md", "subprotocol").code_names() == [*encoders.SOCKET_FORMATS]


def test_api_docs_list_close_codes() -> None:
    too_large = "1009"  # tornado's own
    ours = {str(code) for code in (socket.CLOSE_NORMAL, socket.CLOSE_GOING_AWAY, socket.CLOSE_TRY_AGAIN_LATER)}
    assert set(find_table("docs/API.md", "code").column()) == ours | {too_large}


async def names_in_error(websocket: WebSocketClient, **message: Any) -> list[str]:
    """Send an invalid message. Returns the names that its error message lists as known or expected."""
    await websocket.send(id=1, **message)
    documented = (await websocket.next_event(1))["error"]
    return str(documented).rstrip(".)").rpartition("known are ")[2].rpartition("one of ")[2].split(", ")


@async_test
async def test_api_docs_list_websocket_ops_with_fields(tmp_path: Path) -> None:
    page = find_table("docs/API.md", "op")
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as websocket,
    ):
        assert page.code_names() == await names_in_error(websocket, op="nothing like it")
        for (op,), fields in zip(map(code_spans, page.column()), map(code_spans, page.column(1)), strict=True):
            if op != "infer":
                assert set(await names_in_error(websocket, op=op, unknown=1)) == set(fields)
        fields = await names_in_error(websocket, op="infer", model="m", text="hi", unknown=1)
        assert {"model", "models", *fields} == {"model", *find_table("docs/API.md", "field").code_names()}


@async_test
async def test_api_docs_list_log_messages(tmp_path: Path) -> None:
    page = find_table("docs/API.md", "message")
    async with (
        running_server(tmp_path) as server,
        open_written_job(server) as job,
        connect_websocket(server) as websocket,
    ):
        await job.writer.write(b"hello\n")
        await websocket.send(op="tail", id=1, job_id=job.id)
        first = await websocket.next_event(1)
        job.finish()
        others = await websocket.read_until_complete(1)
    assert [message["type"] for message in (first, *others)] == page.code_names()
    assert {*first} - {"type"} == set(code_spans(page.rows[0][1])[:4])


@async_test
async def test_api_docs_list_feed_messages(tmp_path: Path) -> None:
    page = find_table("docs/API.md", "topic")
    assert set(page.code_names()) == set(TOPICS)
    documented = {
        topic: code_spans(row[2])[0] for (topic,), row in zip(map(code_spans, page.column()), page.rows, strict=True)
    }
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as websocket,
    ):
        for topic in TOPICS:
            await websocket.send(op="subscribe", id=topic, topics=[topic])
            assert topic in await websocket.next_event(topic)
        await trigger_changes(server, tmp_path)
        assert {topic: (await websocket.next_event(topic))["type"] for topic in TOPICS} == documented


async def trigger_changes(server: RunningServer, folder: Path) -> None:
    """Change a model's preset and start a job, so that each topic of the feed has an event."""
    write_hyperpod_preset(folder / "presets")
    path = folder / "presets" / "models" / "m.yaml"
    path.write_text(yaml.safe_dump(scripted_model("say:other")))
    while "small" not in (await server.get("/api/hyperpod/presets")).json["presets"]:
        pass
    await submit(server)
