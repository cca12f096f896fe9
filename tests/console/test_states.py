"""What stands on the page while nothing is there yet, where the server is away, and where something fails."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import Route, expect

from tests.console.browser import ask, browsing, in_browser
from tests.jobs import write_hyperpod
from tests.serving import says, serving

PRESETS = "**/api/hyperpod/presets"


@in_browser()
async def test_what_is_not_told_yet_is_said_to_be_loading_and_not_to_be_nothing(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    go = asyncio.Event()

    async def held(route: Route) -> None:
        await go.wait()
        await route.continue_()

    async with serving(tmp_path) as server, browsing(server.url, "models") as page:
        await page.route(PRESETS, held)
        await page.goto(f"{server.url}/#/clusters/deploy/small")
        await expect(page.get_by_role("status").filter(has_text="Loading the preset …")).to_be_visible()
        await expect(page.locator(".clusters-side section", has_text="Standing")).to_contain_text("Loading …")
        go.set()
        await expect(page.get_by_role("heading", name="Deploy small")).to_be_visible()
        await expect(page.get_by_text("Nothing: no live deploy has left a stack.")).to_be_visible()


@in_browser()
async def test_what_fails_says_why_and_is_tried_again(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    error = {"error": "It is tired.", "code": "internal", "request_id": "the-request"}
    async with serving(tmp_path) as server, browsing(server.url, "models") as page:
        await page.route(PRESETS, lambda route: route.fulfill(status=500, json=error))
        await page.goto(f"{server.url}/#/clusters/deploy/small")
        failed = page.get_by_role("alert").filter(has_text="It is tired.")
        await expect(failed).to_contain_text("the-request")
        await page.unroute(PRESETS)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("heading", name="Deploy small")).to_be_visible()


@in_browser()
async def test_a_server_that_goes_away_is_said_to_be_and_what_is_asked_meanwhile_waits_for_it(tmp_path: Path) -> None:
    models = {"m": says("say:hi")}
    async with AsyncExitStack() as browser:
        async with serving(tmp_path, models=models) as server:
            page = await browser.enter_async_context(browsing(server.url))
            await page.locator("input[name=model]").wait_for()
        await expect(page.get_by_role("alert").filter(has_text="The connection is lost")).to_be_visible()
        await expect(page.locator("#connection")).to_have_text("Offline")
        await ask(page, "Hello", "m")
        await expect(page.locator(".answer .badge")).to_have_text("Waiting")
        async with serving(tmp_path, "--port", str(server.port), models=models):
            await expect(page.locator(".answer .badge")).to_have_text("Done")
            await expect(page.locator("#banner")).to_be_hidden()
            await expect(page.locator("#connection")).to_have_text("Connected")


@in_browser()
async def test_a_key_that_is_not_let_in_any_more_is_asked_for_again(tmp_path: Path) -> None:
    keys = {"FORGELINE_API_KEYS": "new"}
    async with serving(tmp_path, models={"m": says("say:hi")}, environ=keys) as server, browsing(server.url) as page:
        await page.evaluate("sessionStorage.setItem('forgeline.key', 'old')")
        await page.reload()
        dialog = page.get_by_role("dialog", name="API key")
        await expect(dialog.get_by_role("alert")).to_have_text("The key of this tab is not let in any more.")
        await dialog.get_by_label("Key", exact=True).fill("new")
        await page.keyboard.press("Enter")
        await expect(page.locator("#connection")).to_have_text("Connected")
