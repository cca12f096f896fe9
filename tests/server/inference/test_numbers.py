"""No integer is sent that JavaScript cannot hold exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.presets.schema import MAX_SAFE_INTEGER
from tests.async_tests import async_test
from tests.running_server import LiveStream, running_server, scripted_model, upstream_model
from tests.server.checks import check_error
from tests.upstream import Upstream, stream_response

ROOT = Path(__file__).parents[3]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def integers_in(value: Any) -> Iterator[int]:
    match value:
        case bool():
            return
        case int():
            yield value
        case list():
            for item in value:
                yield from integers_in(item)
        case dict():
            yield from integers_in(list(value.values()))


@async_test
async def test_usage_beyond_javascript_is_null(tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = stream_response(["Hi"], usage=(MAX_SAFE_INTEGER, MAX_SAFE_INTEGER + 1))
        answer = await server.post("/api/models/m", {"text": "hi"})
        chat = await server.post("/v1/chat/completions", CHAT)
    assert answer.json["response"]["usage"] == {"input_tokens": MAX_SAFE_INTEGER, "output_tokens": None}
    assert (chat.status, "usage" in chat.json) == (200, False)


@async_test
async def test_usage_whose_sum_is_beyond_javascript_is_left_out_of_chat_completion(tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = stream_response(["Hi"], usage=(MAX_SAFE_INTEGER, 1))
        chat = await server.post("/v1/chat/completions", CHAT)
    assert (chat.status, "usage" in chat.json) == (200, False)


@async_test
async def test_stream_of_chat_without_max_tokens_starts_with_null(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:a; hang")}) as server,
        server.open_stream("/v1/chat/completions", {**CHAT, "stream": True}) as answer,
        server.http.get(f"{server.url}/api/streams/{answer.response.headers['X-Stream-Id']}") as resumed,
    ):
        start = await LiveStream(resumed).next_event()
    assert start["request"]["max_tokens"] is None


@async_test
async def test_request_with_max_tokens_beyond_javascript_is_rejected(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        request = {"text": "hi", "max_tokens": MAX_SAFE_INTEGER}
        assert (await server.post("/api/models/m", request)).json["request"]["max_tokens"] == MAX_SAFE_INTEGER
        rejected = await server.post("/api/models/m", {"text": "hi", "max_tokens": MAX_SAFE_INTEGER + 1})
        check_error(rejected, 400, "invalid_request", "max_tokens")


@async_test
async def test_preset_with_limit_beyond_javascript_is_rejected(tmp_path: Path) -> None:
    models = {
        "large": scripted_model("echo", limits={"max_tokens": MAX_SAFE_INTEGER}),
        "too-large": scripted_model("echo", limits={"max_tokens": MAX_SAFE_INTEGER + 1}),
    }
    async with running_server(tmp_path, models=models) as server:
        (listed,) = (await server.get("/api/models")).json["models"]
    assert (listed["name"], listed["limits"]["max_tokens"]) == ("large", MAX_SAFE_INTEGER)


@async_test
async def test_api_description_and_schemas_of_editors_have_no_integer_beyond_javascript(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        documents = [(await server.get("/api/openapi.json")).json]
    documents += [json.loads(path.read_text()) for path in (ROOT / "docs" / "schema").glob("*.json")]
    assert max(map(abs, integers_in(documents))) <= MAX_SAFE_INTEGER
