"""`forgeline batch` with lines and records in the format of OpenAI's Batch API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.async_tests import slow_async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import running_server, scripted_model, upstream_model
from tests.server.client.run_cli import run_cli
from tests.upstream import Upstream, stream_response


def openai_line(custom_id: str, content: Any, model: str = "m", **keys: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **keys.pop("body", {})}
    fields = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **keys}
    return json.dumps(fields) + "\n"


def records_by_id(target: Path) -> dict[str, dict[str, Any]]:
    return {record["custom_id"]: record for record in map(json.loads, target.read_text().splitlines())}


@slow_async_test
async def test_batch_openai_lines_get_openai_records(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        openai_line("a", "Hi") + openai_line("b", "Hi", "nobody") + openai_line("c", "Hi", url="/v1/embeddings")
    )
    with source.open("a") as file:
        file.write(openai_line("d", "Hi", body={"stream": True}) + '{"text": "ours", "model": "m"}\n')
    async with running_server(tmp_path, models={"m": scripted_model("echo; usage:1,2")}) as server:
        result = await run_cli(server.url, "batch", str(source), str(target))
        assert server.scripted.calls == 2
    assert (result.code, "5 lines: 2 answered, 3 failed" in result.err) == (1, True)
    *lines, native = [json.loads(record) for record in sorted(target.read_text().splitlines(), key=_line_number)]
    assert native["response"]["content"][0]["text"] == "ours"
    answered, unknown, wrong_url, streaming = lines
    assert (answered["custom_id"], answered["error"], answered["response"]["status_code"]) == ("a", None, 200)
    assert answered["response"]["body"]["choices"][0]["message"]["content"] == "Hi"
    assert answered["response"]["body"]["usage"]["completion_tokens"] == 2
    assert unknown["response"]["status_code"] == 404
    assert "nobody" in unknown["error"]["message"]
    assert "/v1/chat/completions" in wrong_url["error"]["message"]
    assert (streaming["response"], "body.stream" in streaming["error"]["message"]) == (None, True)


@slow_async_test
async def test_batch_openai_line_sends_picture_and_overridden_model(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    picture = {"url": f"data:image/png;base64,{plain_picture(8, 8).as_base64()}"}
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": picture}]
    source.write_text(openai_line("a", parts, "gpt-4o-mini"))
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = stream_response(["A square."])
        assert (await run_cli(server.url, "batch", str(source), str(target), "--model", "m")).code == 0
        assert [part["type"] for part in upstream.requests[0].body["messages"][-1]["content"]].count("image_url") == 1
    assert records_by_id(target)["a"]["response"]["body"]["choices"][0]["message"]["content"] == "A square."


def _line_number(record: str) -> int:
    number: int = json.loads(record)["line"]
    return number
