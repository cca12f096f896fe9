"""Placeholders of the console: while data loads, while the server is unreachable, and after errors."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import Route, expect

from tests.console.browser import browser_test, open_page, send_prompt
from tests.jobs import write_hyperpod_preset
from tests.running_server import running_server, scripted_model

PRESETS_URL = "**/api/hyperpod/presets"


@browser_test()
async def test_clusters_page_shows_loading_before_lists_arrive(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    may_continue = asyncio.Event()

    async def hold(route: Route) -> None:
        await may_continue.wait()
        await route.continue_()

    async with running_server(tmp_path) as server, open_page(server.url, "models") as page:
        await page.route(PRESETS_URL, hold)
        await page.goto(f"{server.url}/#/clusters/deploy/small")
        await expect(page.get_by_role("status").filter(has_text="Loading the preset …")).to_be_visible()
        await expect(page.locator(".clusters-sidebar section", has_text="Standing")).to_contain_text("Loading …")
        may_continue.set()
        await expect(page.get_by_role("heading", name="Deploy small")).to_be_visible()
        await expect(page.get_by_text("Nothing: no live deploy has left a stack.")).to_be_visible()


@browser_test()
async def test_error_state_shows_reason_and_retries(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    error = {"error": "It is tired.", "code": "internal", "request_id": "the-request"}
    async with running_server(tmp_path) as server, open_page(server.url, "models") as page:
        await page.route(PRESETS_URL, lambda route: route.fulfill(status=500, json=error))
        await page.goto(f"{server.url}/#/clusters/deploy/small")
        alert = page.get_by_role("alert").filter(has_text="It is tired.")
        await expect(alert).to_contain_text("the-request")
        await page.unroute(PRESETS_URL)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("heading", name="Deploy small")).to_be_visible()


@browser_test()
async def test_server_restart_shows_offline_then_sends_waiting_prompt(tmp_path: Path) -> None:
    models = {"m": scripted_model("say:hi")}
    async with AsyncExitStack() as exit_stack:
        async with running_server(tmp_path, models=models) as server:
            page = await exit_stack.enter_async_context(open_page(server.url))
            await page.locator("input[name=model]").wait_for()
        await expect(page.get_by_role("alert").filter(has_text="The connection is lost")).to_be_visible()
        await expect(page.locator("#connection")).to_have_text("Offline")
        await send_prompt(page, "Hello", "m")
        await expect(page.locator(".answer .badge")).to_have_text("Waiting")
        async with running_server(tmp_path, "--port", str(server.port), models=models):
            await expect(page.locator(".answer .badge")).to_have_text("Done")
            await expect(page.locator("#banner")).to_be_hidden()
            await expect(page.locator("#connection")).to_have_text("Connected")


@browser_test()
async def test_rejected_api_key_prompts_again(tmp_path: Path) -> None:
    keys = {"FORGELINE_API_KEYS": "new"}
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:hi")}, environ=keys) as server,
        open_page(server.url) as page,
    ):
        await page.evaluate("sessionStorage.setItem('forgeline.key', 'old')")
        await page.reload()
        dialog = page.get_by_role("dialog", name="API key")
        await expect(dialog.get_by_role("alert")).to_have_text("The key of this tab is not let in any more.")
        await dialog.get_by_label("Key", exact=True).fill("new")
        await page.keyboard.press("Enter")
        await expect(page.locator("#connection")).to_have_text("Connected")
