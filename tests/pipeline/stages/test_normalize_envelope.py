"""normalize_envelope: a response becomes chunks and one envelope, equal for all providers."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from pipeline.envelope import Envelope
from pipeline.errors import ModelError
from pipeline.messages import (
    EventStream,
    Failure,
    Finish,
    Inference,
    ModelResponse,
    Parameters,
    Reasoning,
    Result,
    UpstreamCall,
    Usage,
)
from pipeline.stage import Context
from tests.async_tests import async_test
from tests.pipeline.factories import CloseCounter, collect, create_stage, make_inference, play_steps


async def collect_events(inference: Inference) -> list[Any]:
    return await collect(await normalize(inference))


async def normalize(inference: Inference) -> EventStream:
    async def proceed(inference: Inference) -> EventStream:
        raise AssertionError("it is the last stage")

    return await create_stage("normalize_envelope", {}, Context())(inference, proceed)


def make_answered_inference(*parts: Any, **more: Any) -> Inference:
    return make_inference(response=CloseCounter().make_response(*parts), **more)


async def make_envelope(inference: Inference) -> Envelope:
    result = (await collect_events(inference))[-1]
    assert isinstance(result, Result)
    return result.envelope


@async_test
async def test_chunks_are_forwarded_and_joined_in_the_result() -> None:
    *chunks, result = await collect_events(make_answered_inference("Hel", "lo", Finish("end_turn"), Usage(3, 2)))
    assert chunks == ["Hel", "lo"]
    assert result.model == "m"
    assert result.envelope["response"] == {
        "id": "msg_1",
        "model": "upstream",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


@async_test
async def test_reasoning_is_left_out() -> None:
    *chunks, result = await collect_events(make_answered_inference(Reasoning("hm"), "Yes"))
    assert chunks == ["Yes"]
    assert result.envelope["response"]["content"][0]["text"] == "Yes"


@async_test
async def test_missing_usage_and_stop_reason_are_not_guessed() -> None:
    response = (await make_envelope(make_answered_inference("a")))["response"]
    assert response["usage"] == {"input_tokens": None, "output_tokens": None}
    assert response["stop_reason"] == "other"


@async_test
async def test_missing_upstream_id_and_model_are_filled_in() -> None:
    model_response = ModelResponse(play_steps(["a"]), streamed=True)
    response = (await make_envelope(make_inference(response=model_response)))["response"]
    assert (response["id"], response["model"]) == ("msg_r", "upstream")


@async_test
async def test_envelope_has_the_original_request_and_the_changed_fields() -> None:
    inference = make_answered_inference("a", parameters=Parameters(max_tokens=5000, temperature=0.7))
    changed = replace(inference, parameters=Parameters(max_tokens=4096, temperature=None))
    envelope = await make_envelope(changed)
    assert envelope["request"]["max_tokens"] == 5000
    assert envelope["request"]["temperature"] == 0.7
    assert envelope["metadata"]["sent"] == {"max_tokens": 4096, "temperature": None}
    assert "sent" not in (await make_envelope(make_answered_inference("a")))["metadata"]


@async_test
async def test_metadata_has_model_provider_and_durations() -> None:
    inference = make_answered_inference("a")
    received_at = time.monotonic() - 1.0
    request = replace(inference.request, received_at=received_at)
    call = UpstreamCall(inference.call.response, started_at=received_at + 0.2, first_chunk_at=received_at + 0.5)
    metadata = (await make_envelope(replace(inference, request=request, started_call=call)))["metadata"]
    assert (metadata["request_id"], metadata["model"], metadata["provider"]) == ("r", "m", "fake")
    assert metadata["time_to_first_token_ms"] == pytest.approx(500, abs=0.01)
    assert 1000 <= metadata["duration_ms"] < 2000
    assert 200 <= metadata["overhead_ms"] < 250


@async_test
async def test_unstreamed_answer_has_no_time_to_first_token() -> None:
    response = ModelResponse(play_steps(["a"]), streamed=False)
    metadata = (await make_envelope(make_inference(response=response)))["metadata"]
    assert metadata["time_to_first_token_ms"] is None


@async_test
async def test_fallback_result_names_the_requested_model() -> None:
    inference = replace(make_answered_inference("a"), requested_model="first")
    (_, result) = await collect_events(inference)
    assert isinstance(result, Result)
    assert result.model == "first"
    assert (result.envelope["metadata"]["model"], result.envelope["metadata"]["fallback_from"]) == ("m", "first")
    assert "fallback_from" not in (await make_envelope(make_answered_inference("a")))["metadata"]


@async_test
async def test_time_has_a_utc_offset() -> None:
    envelope = await make_envelope(make_answered_inference("a"))
    assert datetime.fromisoformat(envelope["time"]).utcoffset() == timedelta(0)


@async_test
async def test_error_after_first_chunk_becomes_a_failure_event() -> None:
    error = ModelError("cut")
    chunk, failure = await collect_events(make_answered_inference("a", error))
    assert chunk == "a"
    assert isinstance(failure, Failure)
    assert (failure.model, failure.error.code, failure.error.message) == ("m", error.code, "cut")
    assert failure.error.__traceback__ is None


@async_test
async def test_unexpected_exception_after_first_chunk_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        await collect_events(make_answered_inference("a", ZeroDivisionError()))


@async_test
async def test_close_before_first_event_closes_the_response() -> None:
    close_counter = CloseCounter()
    await (await normalize(make_inference(response=close_counter.make_response("a")))).aclose()
    assert close_counter.counts == [1]
