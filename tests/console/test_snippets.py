"""Code snippets of a request: run by the interpreter of each language, they send the same request."""

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

from tests.console.browser import ROOT, browser_test, open_page, send_prompt
from tests.running_server import RunningServer, running_server, scripted_model

RECEIPT = ROOT / "docs" / "receipt.png"
KEY = 'a key\'s "$value"'
QUESTION = 'It\'s $HOME, `whoami`, "quoted" \\n, 文, "frames": [] and \u00e9?'
RUNNERS = {
    "curl": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "JavaScript": ["node", "--input-type=module", "-e"],
}
languages = pytest.mark.parametrize("language", RUNNERS)


async def copy_code(page: Page, language: str) -> str:
    await page.get_by_role("button", name="As code").click()
    await page.get_by_role("tab", name=language).click()
    await page.get_by_role("button", name=f"Copy {language}").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code: str = await page.evaluate("navigator.clipboard.readText()")
    return code


async def run_code(language: str, code: str, environ: Mapping[str, str] | None = None) -> str:
    runner = RUNNERS[language]
    if shutil.which(runner[0]) is None:
        pytest.skip(f"{runner[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        *runner,
        code,
        cwd=RECEIPT.parent,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return (await process.communicate())[0].decode()


async def run_and_expect_call(
    server: RunningServer, language: str, code: str, environ: Mapping[str, str] | None = None
) -> str:
    calls = server.scripted.calls
    output = await run_code(language, code, environ)
    assert server.scripted.calls > calls, output
    return output


@languages
@browser_test()
async def test_snippet_sends_same_request(tmp_path: Path, language: str) -> None:
    async with (
        running_server(tmp_path, models={"echo": scripted_model("echo")}) as server,
        open_page(server.url) as page,
    ):
        await page.locator("#media-input").set_input_files(RECEIPT)
        await send_prompt(page, QUESTION, "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        output = await run_and_expect_call(server, language, await copy_code(page, language))
        assert ('"delta":"It\'s "' if language == "curl" else QUESTION) in output


@languages
@browser_test()
async def test_snippet_with_models_settings_and_key(tmp_path: Path, language: str) -> None:
    models = {"one": scripted_model("echo"), "two": scripted_model("echo")}
    environ = {"FORGELINE_API_KEYS": KEY}
    async with running_server(tmp_path, models=models, environ=environ) as server, open_page(server.url) as page:
        await page.get_by_label("Key", exact=True).fill(KEY)
        await page.keyboard.press("Enter")
        await page.get_by_text("Settings").click()
        await page.get_by_label("Max tokens").fill("77")
        await page.get_by_label("Temperature").fill("0.5")
        await page.get_by_label("System prompt").fill("true,\nfalse")
        await send_prompt(page, "Hello", *models)
        await expect(page.locator(".answer .badge")).to_have_text(["Done", "Done"])
        code = await copy_code(page, language)
        assert KEY not in code
        output = await run_and_expect_call(server, language, code, {"FORGELINE_KEY": KEY})
        assert output.count('"delta":"Hello"' if language == "curl" else "Hello") == 2
        rejected_output = await run_code(language, code, {"FORGELINE_KEY": "another"})
        assert "API key" in rejected_output


@browser_test()
async def test_copy_without_clipboard_api_uses_copy_command(tmp_path: Path) -> None:
    """Plain http in a private network is no secure context, so `navigator.clipboard` is missing there."""
    async with (
        running_server(tmp_path, models={"echo": scripted_model("echo")}) as server,
        open_page(server.url) as page,
    ):
        await send_prompt(page, "Hello", "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not here')); }")
        assert "Hello" in await copy_code(page, "curl")
