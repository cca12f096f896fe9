"""The embedded model and videos: of their frames it is told what is written in them, each thing once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame
from pipeline.messages import Message
from pipeline.providers import local
from pipeline.providers.local import Local
from pipeline.sampling import as_video
from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.pipeline.filmed import sample
from tests.pipeline.providers.asking import inference, route


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ([["Way out"]] * 3, "Text read from an image:\nWay out\nQuestion: Where?"),
        (
            [["A"], [], ["A"], ["B"], ["B"], ["A"]],
            "Text read from image 1:\nA\nText read from image 2:\nB\nText read from image 3:\nA\nQuestion: Where?",
        ),
    ],
)
def test_what_stands_in_several_frames_is_told_once_and_without_the_sentence(
    written: list[list[str]], told: str
) -> None:
    asked = inference(as_video(Message("user", (*[plain(2, 2)] * len(written), "Where?"))))
    asked = replace(asked, request=replace(asked.request, media_type="video"))
    (message,) = local._chat(asked, [written])["messages"]
    assert message["content"] == told


@asynchronous
async def test_a_preset_that_says_it_takes_video_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: object())
    video = EncodedFrame(sample("mp4"), "frames[0]").decode()
    with pytest.raises(InvalidRequest, match="takes no video itself"):
        await Local().open(route(provider="local"), inference(Message("user", (video, "Hi"))))
