"""Batches in OpenAI's shape: lines and records as its own tools write and read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.aio import unhurried
from tests.pipeline.drawn import plain
from tests.server.client.commands import typed
from tests.serving import asks, says, serving
from tests.upstream import Upstream, stream_of


def line(custom_id: str, content: Any, model: str = "m", **keys: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **keys.pop("body", {})}
    asked = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **keys}
    return json.dumps(asked) + "\n"


def records(target: Path) -> dict[str, dict[str, Any]]:
    return {record["custom_id"]: record for record in map(json.loads, target.read_text().splitlines())}


@unhurried
async def test_lines_of_openai_are_answered_in_its_shape(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(line("a", "Hi") + line("b", "Hi", "nobody") + line("c", "Hi", url="/v1/embeddings"))
    with source.open("a") as more:
        more.write(line("d", "Hi", body={"stream": True}) + '{"text": "ours", "model": "m"}\n')
    async with serving(tmp_path, models={"m": says("echo; usage:1,2")}) as server:
        done = await typed(server.url, "batch", str(source), str(target))
        assert server.scripted.calls == 2
    assert (done.code, "5 lines: 2 answered, 3 failed" in done.err) == (1, True)
    *lines, ours = [json.loads(record) for record in sorted(target.read_text().splitlines(), key=_number)]
    assert ours["response"]["content"][0]["text"] == "ours"
    good, unknown, elsewhere, streaming = lines
    assert (good["custom_id"], good["error"], good["response"]["status_code"]) == ("a", None, 200)
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "Hi"
    assert good["response"]["body"]["usage"]["completion_tokens"] == 2
    assert unknown["response"]["status_code"] == 404
    assert "nobody" in unknown["error"]["message"]
    assert "/v1/chat/completions" in elsewhere["error"]["message"]
    assert (streaming["response"], "body.stream" in streaming["error"]["message"]) == (None, True)


@unhurried
async def test_pictures_and_a_model_for_all_lines_reach_the_model(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    picture = {"url": f"data:image/png;base64,{plain(8, 8).as_base64()}"}
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": picture}]
    source.write_text(line("a", parts, "gpt-4o-mini"))
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["A square."])
        assert (await typed(server.url, "batch", str(source), str(target), "--model", "m")).code == 0
        assert [part["type"] for part in up.requests[0].body["messages"][-1]["content"]].count("image_url") == 1
    assert records(target)["a"]["response"]["body"]["choices"][0]["message"]["content"] == "A square."


def _number(record: str) -> int:
    number: int = json.loads(record)["line"]
    return number
