"""normalize_envelope: a reply becomes chunks and one envelope, the same whoever answered."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.messages import Call, Events, Failure, Inference, Parameters, Reasoning, Reply, Result, Stop, Usage
from pipeline.stage import Context
from pipeline.stages.normalize_envelope import create
from tests.aio import asynchronous
from tests.pipeline.making import Ledger, all_of, asked, play


async def told(inference: Inference) -> list[Any]:
    return await all_of(await normalized(inference))


async def normalized(inference: Inference) -> Events:
    async def never(inference: Inference) -> Events:
        raise AssertionError("it is the last stage")

    return await create({}, Context())(inference, never)


def answered(*parts: Any, **more: Any) -> Inference:
    return asked(called=Ledger().reply(*parts), **more)


async def envelope(inference: Inference) -> dict[str, Any]:
    result = (await told(inference))[-1]
    assert isinstance(result, Result)
    return result.envelope


@asynchronous
async def test_chunks_come_as_they_are_and_joined_they_are_the_text_of_the_result() -> None:
    *chunks, result = await told(answered("Hel", "lo", Stop("end_turn"), Usage(3, 2)))
    assert chunks == ["Hel", "lo"]
    assert result.model == "m"
    assert result.envelope["response"] == {
        "id": "msg_1",
        "model": "upstream",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


@asynchronous
async def test_reasoning_is_not_shown() -> None:
    *chunks, result = await told(answered(Reasoning("hm"), "Yes"))
    assert chunks == ["Yes"]
    assert result.envelope["response"]["content"][0]["text"] == "Yes"


@asynchronous
async def test_what_the_provider_does_not_say_is_null_and_never_a_guess() -> None:
    response = (await envelope(answered("a")))["response"]
    assert response["usage"] == {"input_tokens": None, "output_tokens": None}
    assert response["stop_reason"] == "other"


@asynchronous
async def test_an_upstream_without_names_gets_ours() -> None:
    reply = Reply(play(["a"]), streamed=True)
    response = (await envelope(asked(called=reply)))["response"]
    assert (response["id"], response["model"]) == ("msg_r", "upstream")


@asynchronous
async def test_the_request_is_shown_as_it_was_asked_and_what_was_sent_where_that_differs() -> None:
    inference = answered("a", parameters=Parameters(max_tokens=5000, temperature=0.7))
    sent = replace(inference, parameters=Parameters(max_tokens=4096, temperature=None))
    whole = await envelope(sent)
    assert whole["request"]["max_tokens"] == 5000
    assert whole["request"]["temperature"] == 0.7
    assert whole["metadata"]["sent"] == {"max_tokens": 4096, "temperature": None}
    assert "sent" not in (await envelope(answered("a")))["metadata"]


@asynchronous
async def test_the_metadata_say_who_answered_and_how_long_it_took() -> None:
    inference = answered("a")
    received = time.monotonic() - 1.0
    request = replace(inference.request, received=received)
    call = Call(inference.call.reply, began=received + 0.2, first_chunk=received + 0.5)
    metadata = (await envelope(replace(inference, request=request, called=call)))["metadata"]
    assert (metadata["request_id"], metadata["model"], metadata["provider"]) == ("r", "m", "counted")
    assert metadata["time_to_first_token_ms"] == pytest.approx(500, abs=0.01)
    assert 1000 <= metadata["duration_ms"] < 2000
    assert 200 <= metadata["overhead_ms"] < 250


@asynchronous
async def test_an_answer_that_came_whole_has_no_time_to_first_token() -> None:
    reply = Reply(play(["a"]), streamed=False)
    assert (await envelope(asked(called=reply)))["metadata"]["time_to_first_token_ms"] is None


@asynchronous
async def test_a_fallback_says_from_which_model() -> None:
    inference = replace(answered("a"), asked="first")
    (_, result) = await told(inference)
    assert isinstance(result, Result)
    assert result.model == "first"
    assert (result.envelope["metadata"]["model"], result.envelope["metadata"]["fallback_from"]) == ("m", "first")
    assert "fallback_from" not in (await envelope(answered("a")))["metadata"]


@asynchronous
async def test_the_time_carries_an_offset() -> None:
    assert datetime.fromisoformat((await envelope(answered("a")))["time"]).utcoffset() == timedelta(0)


@asynchronous
async def test_an_error_in_the_middle_is_told_in_place_of_the_result() -> None:
    error = ModelError("cut")
    chunk, failure = await told(answered("a", error))
    assert chunk == "a"
    assert isinstance(failure, Failure)
    assert (failure.model, failure.error.code, failure.error.message) == ("m", error.code, "cut")
    assert failure.error.__traceback__ is None


@asynchronous
async def test_a_bug_in_the_middle_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await told(answered("a", ZeroDivisionError()))


@asynchronous
async def test_its_close_closes_the_reply_also_when_nothing_was_read() -> None:
    ledger = Ledger()
    await (await normalized(asked(called=ledger.reply("a")))).aclose()
    assert ledger.closed == [1]
