"""POST /api/multi-inference: many models side by side, none in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import asks, says, serving, until
from tests.upstream import Answer, Upstream, hang, refusal, stream_of

PATH = "/api/multi-inference"
MODELS = {
    "a": says("say:I am a"),
    "b": says("say:I am b; fail:model_error"),
    "c": says("fail:model_not_deployed"),
    "d": says("fail:rate_limited"),
}


def asked(*models: str, **fields: Any) -> dict[str, Any]:
    return {"text": "hi", "models": list(models), **fields}


@asynchronous
async def test_the_results_come_in_the_order_asked_each_with_its_status(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        answer = await server.post(PATH, asked("c", "b", "d", "a"))
    body = answer.json
    assert answer.status == 200
    assert body.keys() == {"time", "request", "results", "metadata"}
    assert body["metadata"]["request_id"] == answer.headers["X-Request-Id"]
    assert [result["model"] for result in body["results"]] == ["c", "b", "d", "a"]
    assert [result["status"] for result in body["results"]] == ["not_deployed", "error", "error", "success"]
    deploy, failed, limited, good = body["results"]
    assert deploy["code"] == "model_not_deployed"
    assert failed.keys() == {"model", "status", "error", "code", "duration_ms"}
    assert (limited["code"], limited["retry_after"]) == ("rate_limited", 1.0)
    assert good.keys() == {"model", "status", "response", "duration_ms"}
    assert good["response"]["content"] == [{"type": "text", "text": "I am a"}]
    assert all(result["duration_ms"] >= 0 for result in body["results"])


@asynchronous
async def test_the_body_comes_as_messagepack_where_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        answer = await server.post(PATH, asked("a", "b"), Accept="application/msgpack")
        assert [result["status"] for result in answer.unpacked["results"]] == ["success", "error"]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
@asynchronous
async def test_by_accept_every_event_comes_tagged_with_its_model(tmp_path: Path, accept: str) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        answer = await server.post(PATH, asked("a", "b", "c", "d"), Accept=accept)
    outcomes = check_stream(answer.events if accept == "text/event-stream" else answer.lines)
    assert text_of(outcomes["a"]) == "I am a"
    codes = [outcomes[model]["code"] for model in "bcd"]
    assert codes == ["model_error", "model_not_deployed", "rate_limited"]


@asynchronous
async def test_one_model_alone_is_tagged_as_well(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        events = (await server.post(PATH, asked("d"), Accept="text/event-stream")).events
        assert [event["type"] for event in events] == ["start", "error", "complete"]
        assert check_stream(events)["d"]["code"] == "rate_limited"


@asynchronous
async def test_text_plain_is_for_one_model_only(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        check_error(await server.post(PATH, asked("a"), Accept="text/plain"), 406, "not_acceptable")
        assert server.scripted.calls == 0


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (None, "models"),
        ([], "models"),
        (["a", "a"], "twice"),
        ("a", "models"),
        ([1], "models[0]"),
        ([f"m{n}" for n in range(17)], "models"),
    ],
)
@asynchronous
async def test_a_list_of_models_that_is_none_is_400(tmp_path: Path, models: Any, words: str) -> None:
    body = {"text": "hi"} if models is None else {"text": "hi", "models": models}
    async with serving(tmp_path, models=MODELS) as server:
        check_error(await server.post(PATH, body), 400, "invalid_request", words)
        assert server.scripted.calls == 0


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@asynchronous
async def test_an_unknown_name_anywhere_is_404_before_any_call(tmp_path: Path, accept: str) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        refused = await server.post(PATH, asked("a", "nobody"), Accept=accept)
        check_error(refused, 404, "unknown_model", "nobody")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("frame", ["!!!", plain(8, 8).as_base64()[:64], "aGVsbG8="])
@pytest.mark.parametrize("models", [["a"], ["a", "b"]])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@asynchronous
async def test_a_frame_that_cannot_be_read_is_400_for_the_whole_request(
    tmp_path: Path, frame: str, models: Sequence[str], accept: str
) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        refused = await server.post(PATH, asked(*models, frames=[frame]), Accept=accept)
        check_error(refused, 400, "invalid_request", "frames[0]")
        assert server.scripted.calls == 0


@asynchronous
async def test_resumable_is_for_streaming_answers_only(tmp_path: Path) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        check_error(await server.post(PATH, asked("a", resumable=True)), 400, "invalid_request", "resumable")
        answer = await server.post(PATH, asked("a", resumable=True), Accept="text/event-stream")
        check_stream(answer.events)


@asynchronous
async def test_what_one_model_refuses_is_its_own_error(tmp_path: Path) -> None:
    cool = says("echo", limits={"temperature": 0.5})
    async with serving(tmp_path, models={"cool": cool, "warm": says("echo")}) as server:
        results = (await server.post(PATH, asked("cool", "warm", temperature=0.9))).json["results"]
        assert [result["status"] for result in results] == ["error", "success"]
        assert results[0]["code"] == "invalid_request"


@asynchronous
async def test_a_models_own_limit_is_its_own_error(tmp_path: Path) -> None:
    models = {"busy": says("hang", concurrency={"calls": 1, "queue": 0}), "free": says("echo")}
    async with serving(tmp_path, models=models) as server, server.live(PATH, asked("busy")) as live:
        await live.next()
        await until(lambda: server.scripted.calls)
        results = (await server.post(PATH, asked("busy", "free"))).json["results"]
        assert [result["status"] for result in results] == ["error", "success"]
        assert results[0]["code"] == "rate_limited"


@pytest.mark.parametrize("answer", [hang(), stream_of(["Hel", asyncio.Event()]), refusal(500)])
@asynchronous
async def test_a_model_that_hangs_or_fails_delays_no_event_of_another(tmp_path: Path, answer: Answer) -> None:
    """Each gate opens only when the client has the event before it: if one model waited for the other, none would."""
    gates = [asyncio.Event() for _ in range(3)]
    async with Upstream() as up:
        up.answers = {"bad": answer, "good": stream_of([piece for n, g in enumerate(gates) for piece in (g, f"{n}")])}
        models = {"bad": asks(up.base_url, "bad"), "good": asks(up.base_url, "good")}
        async with (
            serving(tmp_path, models=models) as server,
            server.live(PATH, asked("bad", "good")) as live,
        ):
            assert (await live.next())["type"] == "start"
            for number, gate in enumerate(gates):
                gate.set()
                event = await live.next()
                while event["model"] == "bad":
                    event = await live.next()
                assert (event["model"], event["delta"]) == ("good", f"{number}")
            event = await live.next()
            while event["model"] == "bad":
                event = await live.next()
            assert event["type"] == "result"


@asynchronous
async def test_a_stream_of_several_models_begins_before_any_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"a": says("hang"), "b": says("hang")}) as server:
        async with server.live(PATH, asked("a", "b")) as live:
            assert live.response.status == 200
            assert (await live.next())["models"] == ["a", "b"]
        await server.ended()
        assert server.scripted.cancelled == 2


@asynchronous
async def test_sixteen_models_answer_at_once(tmp_path: Path) -> None:
    names = [f"m{n}" for n in range(16)]
    async with serving(tmp_path, models={name: says("chunks:100") for name in names}) as server:
        outcomes = check_stream((await server.post(PATH, asked(*names), Accept="text/event-stream")).events)
        assert {text_of(outcome) for outcome in outcomes.values()} == {"".join(f"tok{n} " for n in range(100))}
        assert list(outcomes) == names
