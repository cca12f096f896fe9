"""BatchStream: its cleanups run once and in order, however it ends. And the summary of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from pipeline.media.frames import EncodedFrame, Frame
from pipeline.messages import BatchStream, InferenceRequest, Message, Parameters
from tests.async_tests import async_test
from tests.pipeline.factories import make_inference


class Journal(list[str]):
    """The names of what was closed, in order."""

    async def numbers(self) -> AsyncGenerator[Sequence[int], None]:
        try:
            yield [1]
            yield [2]
        finally:
            self.append("generator")

    async def close_later(self) -> None:
        await asyncio.sleep(0)
        self.append("later")

    def close_at_once(self) -> None:
        self.append("at once")

    def fail(self) -> None:
        self.append("fail")
        raise OSError("broken")

    async def fail_later(self) -> None:
        await asyncio.sleep(0)
        self.fail()


@async_test
async def test_close_after_first_batch_closes_generator_then_runs_cleanups_in_order() -> None:
    journal = Journal()
    stream = BatchStream(journal.numbers(), journal.close_later, journal.close_at_once)
    async for numbers in stream:
        assert numbers == [1]
        break
    await stream.aclose()
    assert journal == ["generator", "later", "at once"]


@async_test
async def test_close_before_iteration_runs_cleanups() -> None:
    journal = Journal()
    stream = BatchStream(journal.numbers(), journal.close_at_once)
    await stream.aclose()
    assert journal == ["at once"]
    assert [number async for numbers in stream for number in numbers] == []


@async_test
async def test_close_after_last_batch_runs_cleanups() -> None:
    journal = Journal()
    stream = BatchStream(journal.numbers(), journal.close_at_once)
    assert [number async for numbers in stream for number in numbers] == [1, 2]
    await stream.aclose()
    assert journal == ["generator", "at once"]


@async_test
async def test_second_iteration_continues_after_first() -> None:
    stream = BatchStream(Journal().numbers())
    assert [await anext(aiter(stream)), await anext(aiter(stream))] == [[1], [2]]
    await stream.aclose()


@async_test
async def test_added_cleanup_runs_last() -> None:
    journal = Journal()
    stream = BatchStream(journal.numbers(), journal.close_later)
    stream.add_cleanup(journal.close_at_once)
    await stream.aclose()
    assert journal == ["later", "at once"]


@async_test
async def test_failing_cleanup_does_not_skip_other_cleanups() -> None:
    journal = Journal()
    stream = BatchStream(journal.numbers(), journal.fail, journal.fail_later, journal.close_at_once)
    with pytest.raises(OSError, match="broken"):
        await stream.aclose()
    assert journal == ["fail", "fail", "at once"]


@async_test
async def test_generator_failing_on_close_does_not_skip_cleanups() -> None:
    journal = Journal()

    async def failing_generator() -> AsyncGenerator[Sequence[int], None]:
        try:
            yield [1]
        finally:
            journal.fail()

    stream = BatchStream(failing_generator(), journal.close_later, journal.close_at_once)
    await anext(aiter(stream))
    with pytest.raises(OSError, match="broken"):
        await stream.aclose()
    assert journal == ["fail", "later", "at once"]


@async_test
async def test_cancelled_close_runs_remaining_cleanups() -> None:
    journal, entered = Journal(), asyncio.Event()

    async def never() -> None:
        entered.set()
        await asyncio.Event().wait()

    stream = BatchStream(journal.numbers(), never, journal.close_later, journal.close_at_once)
    task = asyncio.create_task(stream.aclose())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert journal == ["later", "at once"]


def test_summary_counts_frames_without_their_content() -> None:
    frame = Frame(b"secret", "png", 1, 1)
    message = Message("user", ("one", frame, "two", EncodedFrame("secret", "frames[1]")))
    assert InferenceRequest((message,), Parameters(max_tokens=5, temperature=None)).summary == {
        "text": "one\ntwo",
        "frames_count": 2,
        "media_type": "image",
        "max_tokens": 5,
        "temperature": None,
    }
    assert message.frames == (frame,)


def test_call_before_invoke_stage_raises_lookup_error() -> None:
    with pytest.raises(LookupError, match="invoke has to stand before"):
        _ = make_inference().call
