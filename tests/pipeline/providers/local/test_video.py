"""The embedded model and videos: the prompt has the text of the frames, without repetitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame
from pipeline.media.sampling import note_frames_of_video
from pipeline.messages import Message
from pipeline.providers.local import provider as local
from pipeline.providers.local.prompt import build_chat
from tests.async_tests import async_test
from tests.pipeline.factories import create_provider
from tests.pipeline.media.make_pictures import plain_picture
from tests.pipeline.media.make_videos import sample_video
from tests.pipeline.providers.helpers import make_inference, make_target


@pytest.mark.parametrize(
    ("texts", "content"),
    [
        ([["Way out"]] * 3, "Text read from an image:\nWay out\nQuestion: Where?"),
        (
            [["A"], [], ["A"], ["B"], ["B"], ["A"]],
            "Text read from image 1:\nA\nText read from image 2:\nB\nText read from image 3:\nA\nQuestion: Where?",
        ),
    ],
)
def test_video_prompt_has_repeated_text_once_without_note(texts: list[list[str]], content: str) -> None:
    inference = make_inference(note_frames_of_video(Message("user", (*[plain_picture(2, 2)] * len(texts), "Where?"))))
    inference = replace(inference, request=replace(inference.request, media_type="video"))
    (message,) = build_chat(inference, [texts])["messages"]
    assert message["content"] == content


@async_test
async def test_video_is_rejected_despite_preset_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: object())
    video = EncodedFrame(sample_video("mp4"), "frames[0]").decode()
    with pytest.raises(InvalidRequest, match="takes no video itself"):
        await create_provider("local").open(
            make_target(provider="local"), make_inference(Message("user", (video, "Hi")))
        )
