"""Closing: whatever becomes of an answer, what it holds is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from pipeline.frames import EncodedFrame, Frame
from pipeline.messages import Closing, InferenceRequest, Message, Parameters
from tests.aio import asynchronous
from tests.pipeline.making import asked


class Journal(list[str]):
    """What was closed, in order."""

    async def numbers(self) -> AsyncGenerator[Sequence[int], None]:
        try:
            yield [1]
            yield [2]
        finally:
            self.append("generator")

    async def later(self) -> None:
        await asyncio.sleep(0)
        self.append("later")

    def at_once(self) -> None:
        self.append("at once")

    def badly(self) -> None:
        self.append("badly")
        raise OSError("broken")

    async def badly_later(self) -> None:
        await asyncio.sleep(0)
        self.badly()


@asynchronous
async def test_a_close_in_the_middle_closes_the_generator_and_then_what_it_holds_in_order() -> None:
    journal = Journal()
    closing = Closing(journal.numbers(), journal.later, journal.at_once)
    async for numbers in closing:
        assert numbers == [1]
        break
    await closing.aclose()
    assert journal == ["generator", "later", "at once"]


@asynchronous
async def test_what_was_never_started_gives_back_what_it_holds() -> None:
    journal = Journal()
    closing = Closing(journal.numbers(), journal.at_once)
    await closing.aclose()
    assert journal == ["at once"]
    assert [number async for numbers in closing for number in numbers] == []


@asynchronous
async def test_what_was_read_to_its_end_gives_back_what_it_holds() -> None:
    journal = Journal()
    closing = Closing(journal.numbers(), journal.at_once)
    assert [number async for numbers in closing for number in numbers] == [1, 2]
    await closing.aclose()
    assert journal == ["generator", "at once"]


@asynchronous
async def test_iterating_goes_on_where_it_was() -> None:
    closing = Closing(Journal().numbers())
    assert [await anext(aiter(closing)), await anext(aiter(closing))] == [[1], [2]]
    await closing.aclose()


@asynchronous
async def test_what_is_held_later_is_closed_last() -> None:
    journal = Journal()
    closing = Closing(journal.numbers(), journal.later)
    closing.hold(journal.at_once)
    await closing.aclose()
    assert journal == ["later", "at once"]


@asynchronous
async def test_one_that_raises_does_not_keep_the_others_from_being_closed() -> None:
    journal = Journal()
    closing = Closing(journal.numbers(), journal.badly, journal.badly_later, journal.at_once)
    with pytest.raises(OSError, match="broken"):
        await closing.aclose()
    assert journal == ["badly", "badly", "at once"]


@asynchronous
async def test_a_generator_that_raises_at_its_close_does_not_either() -> None:
    journal = Journal()

    async def stubborn() -> AsyncGenerator[Sequence[int], None]:
        try:
            yield [1]
        finally:
            journal.badly()

    closing = Closing(stubborn(), journal.later, journal.at_once)
    await anext(aiter(closing))
    with pytest.raises(OSError, match="broken"):
        await closing.aclose()
    assert journal == ["badly", "later", "at once"]


@asynchronous
async def test_a_close_that_is_cancelled_still_closes_the_others() -> None:
    journal, entered = Journal(), asyncio.Event()

    async def never() -> None:
        entered.set()
        await asyncio.Event().wait()

    closing = Closing(journal.numbers(), never, journal.later, journal.at_once)
    task = asyncio.create_task(closing.aclose())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert journal == ["later", "at once"]


def test_a_summary_counts_frames_and_shows_none() -> None:
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


def test_a_stage_that_comes_too_early_is_told_which_one_has_to_stand_before_it() -> None:
    with pytest.raises(LookupError, match="invoke has to stand before"):
        _ = asked().call
