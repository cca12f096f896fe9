"""docs/API.md has every address, field, event and op that there is, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import yaml
from tornado.web import RequestHandler

from infraforge_runner.cdk import Phase
from infraforge_runner.job import State
from infraforge_runner.plan import Plan
from server import wire
from server.app import ROUTES, patterns_of
from server.handlers import hyperpod, socket
from server.openapi import answers
from server.openapi import hyperpod as described
from server.openapi.document import anonymous, served_paths
from server.requests import MultiInferenceBody
from server.subscription import TOPICS
from tests.aio import asynchronous
from tests.docs.pages import code_in, table
from tests.docs.test_presets import is_so, keys_of
from tests.jobs import submit, write_hyperpod
from tests.server.jobs import written_job
from tests.serving import Server, says, serving
from tests.sockets import Talk, talking

ADDRESSES = [
    table("docs/API.md", "method", "Models and answers"),
    table("docs/API.md", "method", "Deploy jobs"),
    table("docs/API.md", "method", "WebSockets"),
    table("docs/API.md", "method", "The server itself"),
]


def methods_of(handler: type[RequestHandler]) -> list[str]:
    names = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return [name for name in names if getattr(handler, name.lower()) is not getattr(RequestHandler, name.lower())]


def test_every_address_is_listed_with_its_methods_and_no_other() -> None:
    told = {(row[0].strip("`"), anonymous(row[1].strip("`"))) for one in ADDRESSES for row in one.rows}
    there = {
        (method, path.replace("(.+)", "{}"))
        for rule in ROUTES
        for path in served_paths(patterns_of([rule]))
        for method in methods_of(rule.target)
    }
    assert told == there


def test_a_websockets_address_stands_among_the_websockets() -> None:
    told = {anonymous(path) for path in ADDRESSES[2].names(1) if path.startswith("/")}
    sockets = [rule for rule in ROUTES if issubclass(rule.target, socket.SocketHandler)]
    assert told == served_paths(patterns_of(sockets))


# --- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "body"),
    [
        (table("docs/API.md", "field"), MultiInferenceBody),
        (table("docs/API.md", "field of a request"), hyperpod.OrderBody),
    ],
)
def test_every_field_of_a_request_is_listed_with_its_default(one: Any, body: Any) -> None:
    told, keys = dict(zip(one.names(), one.column(1), strict=True)), dict(keys_of(body))
    assert told.keys() == keys.keys()
    by_option = {"dry_run": "`--dry-run`", "frames": "`[]`"}  # set later on, where they are not given
    wrong = [name for name, cell in told.items() if cell != by_option.get(name) and not is_so(cell, keys[name])]
    assert wrong == []


def leaves(kind: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of a type's fields; a list is one."""
    for name, of in get_type_hints(kind).items():
        nested = isinstance(of, type) and not isinstance(of, UnionType) and issubclass(of, msgspec.Struct)
        yield from leaves(of, f"{prefix}{name}.") if nested else [prefix + name]


def test_every_field_of_an_answer_is_listed() -> None:
    assert table("docs/API.md", "field of an answer").names() == [*leaves(answers.Envelope)]


def test_every_status_of_a_result_is_listed() -> None:
    kinds = (answers.Succeeded, answers.Failed, answers.NotDeployed)
    assert table("docs/API.md", "status of a result").names() == [kind.__struct_config__.tag for kind in kinds]


def test_every_field_of_a_job_is_listed_and_each_value_of_those_that_have_few() -> None:
    page = table("docs/API.md", "field of a job")
    result = [f"result.{field}" for field in described.JobResult.__struct_fields__]
    assert set(page.names()) == {*described.Job.__struct_fields__, *result}
    cells = dict(zip(page.names(), page.column(1), strict=True))
    assert code_in(cells["status"]) == [*get_args(State)]
    assert code_in(cells["phase"]) == [*get_args(Phase)]
    assert code_in(cells["result.plan"]) == [*Plan.__struct_fields__]


# --- streams ---------------------------------------------------------------------------------------


def test_every_type_of_a_stream_is_listed_and_the_default_is_the_first() -> None:
    assert table("docs/API.md", "`Accept`").names()[: len(wire.ENCODERS)] == [*wire.ENCODERS]
    assert "default" in table("docs/API.md", "`Accept`").rows[0][1]


def test_every_event_is_listed_with_what_it_carries() -> None:
    page = table("docs/API.md", "event")
    told = {
        name: set(code_in(carries))
        for (name,), carries in zip(map(code_in, page.column()), page.column(1), strict=True)
    }
    kinds = get_args(answers.Event)
    assert told == {kind.__struct_config__.tag: {*kind.__struct_fields__} for kind in kinds}


# --- sockets ---------------------------------------------------------------------------------------


def test_every_subprotocol_is_listed_the_default_first() -> None:
    assert table("docs/API.md", "subprotocol").names() == [*wire.SOCKET_FORMATS]


def test_every_code_of_a_close_is_listed() -> None:
    too_large = "1009"  # tornado's own
    ours = {str(code) for code in (socket.NORMAL, socket.GOING_AWAY, socket.TRY_LATER)}
    assert set(table("docs/API.md", "code").column()) == ours | {too_large}


async def refusal(talk: Talk, **message: Any) -> list[str]:
    """What the sentence that refuses a message calls known, or expects."""
    await talk.say(id=1, **message)
    told = (await talk.next(1))["error"]
    return str(told).rstrip(".)").rpartition("known are ")[2].rpartition("one of ")[2].split(", ")


@asynchronous
async def test_every_op_is_listed_with_its_fields(tmp_path: Path) -> None:
    page = table("docs/API.md", "op")
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        assert page.names() == await refusal(talk, op="nothing like it")
        for (op,), fields in zip(map(code_in, page.column()), map(code_in, page.column(1)), strict=True):
            if op != "infer":
                assert set(await refusal(talk, op=op, unknown=1)) == set(fields)
        fields = await refusal(talk, op="infer", model="m", text="hi", unknown=1)
        assert {"model", "models", *fields} == {"model", *table("docs/API.md", "field").names()}


@asynchronous
async def test_the_messages_of_a_log_are_those_that_come(tmp_path: Path) -> None:
    page = table("docs/API.md", "message")
    async with serving(tmp_path) as server, written_job(server) as job, talking(server) as talk:
        await job.writer.write(b"hello\n")
        await talk.say(op="tail", id=1, job_id=job.id)
        first = await talk.next(1)
        job.finish()
        rest = await talk.whole(1)
    assert [message["type"] for message in (first, *rest)] == page.names()
    assert {*first} - {"type"} == set(code_in(page.rows[0][1])[:4])


@asynchronous
async def test_the_messages_of_the_feed_are_those_that_come(tmp_path: Path) -> None:
    page = table("docs/API.md", "topic")
    assert set(page.names()) == set(TOPICS)
    told = {topic: code_in(row[2])[0] for (topic,), row in zip(map(code_in, page.column()), page.rows, strict=True)}
    async with serving(tmp_path, models={"m": says("echo")}) as server, talking(server) as talk:
        for topic in TOPICS:
            await talk.say(op="subscribe", id=topic, topics=[topic])
            assert topic in await talk.next(topic)
        await change_something(server, tmp_path)
        assert {topic: (await talk.next(topic))["type"] for topic in TOPICS} == told


async def change_something(server: Server, folder: Path) -> None:
    """A preset is changed, which is one of a model, and a job begins."""
    write_hyperpod(folder / "presets")
    path = folder / "presets" / "models" / "m.yaml"
    path.write_text(yaml.safe_dump(says("say:other")))
    while "small" not in (await server.get("/api/hyperpod/presets")).json["presets"]:
        pass
    await submit(server)
