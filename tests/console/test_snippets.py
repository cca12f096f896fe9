"""A request copied as code: each language's own program runs it, and it asks the server the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.console.browser import ROOT, ask, browsing, in_browser
from tests.serving import Server, says, serving

RECEIPT = ROOT / "docs" / "receipt.png"
KEY = 'a key\'s "$value"'
QUESTION = 'It\'s $HOME, `whoami`, "quoted" \\n, 文, "frames": [] and \u00e9?'
RUNNERS = {
    "curl": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "JavaScript": ["node", "--input-type=module", "-e"],
}
languages = pytest.mark.parametrize("language", RUNNERS)


async def copied(page: Page, language: str) -> str:
    await page.get_by_role("button", name="As code").click()
    await page.get_by_role("tab", name=language).click()
    await page.get_by_role("button", name=f"Copy {language}").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code: str = await page.evaluate("navigator.clipboard.readText()")
    return code


async def printed(language: str, code: str, environ: Mapping[str, str] | None = None) -> str:
    runner = RUNNERS[language]
    if shutil.which(runner[0]) is None:
        pytest.skip(f"{runner[0]} is not installed")
    child = await asyncio.create_subprocess_exec(
        *runner,
        code,
        cwd=RECEIPT.parent,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return (await child.communicate())[0].decode()


async def asks_once_more(server: Server, language: str, code: str, environ: Mapping[str, str] | None = None) -> str:
    calls = server.scripted.calls
    output = await printed(language, code, environ)
    assert server.scripted.calls > calls, output
    return output


@languages
@in_browser()
async def test_the_request_as_code_does_the_same(tmp_path: Path, language: str) -> None:
    async with serving(tmp_path, models={"echo": says("echo")}) as server, browsing(server.url) as page:
        await page.locator("#media-input").set_input_files(RECEIPT)
        await ask(page, QUESTION, "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        output = await asks_once_more(server, language, await copied(page, language))
        assert ('"delta":"It\'s "' if language == "curl" else QUESTION) in output


@languages
@in_browser()
async def test_several_models_settings_and_a_key_are_asked_as_code_too(tmp_path: Path, language: str) -> None:
    models = {"one": says("echo"), "two": says("echo")}
    environ = {"FORGELINE_API_KEYS": KEY}
    async with serving(tmp_path, models=models, environ=environ) as server, browsing(server.url) as page:
        await page.get_by_label("Key", exact=True).fill(KEY)
        await page.keyboard.press("Enter")
        await page.get_by_text("Settings").click()
        await page.get_by_label("Max tokens").fill("77")
        await page.get_by_label("Temperature").fill("0.5")
        await page.get_by_label("System prompt").fill("true,\nfalse")
        await ask(page, "Hello", *models)
        await expect(page.locator(".answer .badge")).to_have_text(["Done", "Done"])
        code = await copied(page, language)
        assert KEY not in code
        output = await asks_once_more(server, language, code, {"FORGELINE_KEY": KEY})
        assert output.count('"delta":"Hello"' if language == "curl" else "Hello") == 2
        refused = await printed(language, code, {"FORGELINE_KEY": "another"})
        assert "API key" in refused


@in_browser()
async def test_a_page_that_may_not_use_the_clipboard_copies_all_the_same(tmp_path: Path) -> None:
    """As over plain http in one's own network, which is no secure context."""
    async with serving(tmp_path, models={"echo": says("echo")}) as server, browsing(server.url) as page:
        await ask(page, "Hello", "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not here')); }")
        assert "Hello" in await copied(page, "curl")
