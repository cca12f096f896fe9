"""Access to the console: API keys, keyboard, screen readers, themes, window widths, and the page's policy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.console.browser import axe_source, browser_test, launch_chromium, open_page, send_prompt
from tests.jobs import submit, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model

KEYS = {"FORGELINE_API_KEYS": "the key/+é"}
PRINT_COLOURS = (
    "for n in 1 2 3 7 30 31 32 33 34 35 36 37 90 97 41 42 43 44 45 46 47; do printf '\\033[%dmn\\033[0m\\n' $n; done"
)
PAGES = ("playground", "clusters", "models")
MAX_ANNOUNCEMENTS = 12  # for hundreds of changes
# Tries ways in which a text could become code or markup, and returns those that work.
INJECTION_SCRIPT = """() => {
    const open = [];
    const attempt = (name, inject, isInjected) => {
        try { inject(); } catch { return; }
        if (isInjected()) open.push(name);
    };
    const box = document.createElement('p');
    document.body.append(box);
    const script = document.createElement('script');
    attempt('markup', () => { box.innerHTML = '<b></b>'; }, () => box.firstChild);
    attempt('script', () => { script.text = 'window.ran = 1'; box.append(script); }, () => window.ran);
    attempt('handler', () => { box.setAttribute('onclick', 'window.ran = 2'); box.click(); }, () => window.ran);
    attempt('style', () => box.setAttribute('style', 'top: 1px'), () => getComputedStyle(box).top === '1px');
    return open;
}"""
# Records the text of every live region when it changes.
RECORD_ANNOUNCEMENTS = """() => {
    window.announcements = [];
    const region = (node) => node.parentElement?.closest('[role=status], [role=alert], [aria-live]');
    new MutationObserver((changes) => {
        const regions = new Set(changes.map((change) => region(change.target) ?? change.target));
        for (const live of regions) {
            if (live.matches('[role=status], [role=alert]')) window.announcements.push(live.textContent);
        }
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@browser_test()
async def test_api_key_prompt_stores_key_for_tab_and_never_in_url(tmp_path: Path) -> None:
    requested_urls: list[str] = []
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:hi")}, environ=KEYS) as server,
        open_page(server.url) as page,
    ):
        page.on("request", lambda request: requested_urls.append(request.url))
        dialog = page.get_by_role("dialog", name="API key")
        await dialog.get_by_label("Key", exact=True).fill("a wrong one")
        await dialog.get_by_role("button", name="Enter").click()
        await expect(dialog.get_by_role("alert")).to_have_text("This key is not let in.")
        await dialog.get_by_label("Key", exact=True).fill(KEYS["FORGELINE_API_KEYS"])
        await dialog.get_by_role("button", name="Enter").click()
        await expect(page.locator("#connection")).to_have_text("Connected")
        await send_prompt(page, "Hello", "m")
        await expect(page.get_by_role("region", name="Answer of m")).to_have_text("hi")
        await page.reload()
        await expect(page.locator("#connection")).to_have_text("Connected")
        other_tab = await page.context.new_page()
        await other_tab.goto(server.url)
        await expect(other_tab.get_by_role("dialog", name="API key")).to_be_visible()
        assert [url for url in requested_urls if "key" in url.replace("/js/api_key.js", "")] == []
        assert "the key" not in await page.evaluate("JSON.stringify(localStorage)")


@browser_test()
async def test_keyboard_alone_sends_stops_and_copies_prompt(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:begun; hang")}) as server,
        open_page(server.url) as page,
    ):
        await page.locator("input[name=model]").wait_for()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
        assert page.url.endswith("/#/playground")  # also after the skip link
        await page.keyboard.type("Hello")
        await page.keyboard.press("Control+Enter")
        await expect(page.get_by_role("region", name="Answer of m")).to_have_text("begun")
        await tab_to(page, "Stop m")
        await page.keyboard.press("Enter")
        await expect(page.locator(".answer .badge")).to_have_text("Stopped")
        await expect(page.locator("#announcer")).to_contain_text("m: Stopped.")
        await tab_to(page, "As code")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(page.get_by_role("button", name="As code")).to_be_focused()


async def tab_to(page: Page, name: str) -> None:
    target = page.get_by_role("button", name=name)
    for _ in range(60):
        if await target.evaluate("button => button === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not reach {name}")


@browser_test()
async def test_theme_follows_system_until_user_selects_one(tmp_path: Path) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    async with running_server(tmp_path) as server, open_page(server.url, color_scheme="dark") as page:
        dark = await page.evaluate(background)
        await page.get_by_role("button", name="Theme: system").click()
        light = await page.evaluate(background)
        assert light != dark
        await page.reload()
        assert await page.evaluate(background) == light
        await page.get_by_role("button", name="Theme: light").click()
        assert await page.evaluate(background) == dark


@browser_test()
async def test_content_security_policy_blocks_injected_markup_script_and_style(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, launch_chromium() as browser:
        page = await browser.new_page()
        await page.goto(server.url)
        await expect(page.locator("#connection")).to_have_text("Connected")
        assert await page.evaluate(INJECTION_SCRIPT) == []


@browser_test()
async def test_announcements_of_busy_feed_are_few(tmp_path: Path) -> None:
    """Fifty saved presets and a search in a growing log are announced in a few messages."""
    go_file, models = tmp_path / "go", tmp_path / "presets" / "models"
    write_hyperpod_preset(
        tmp_path / "presets", deploy=f"until [ -e {go_file} ]; do echo line; sleep 0.01; done", timeout=120
    )
    async with running_server(tmp_path) as server, open_page(server.url, "models") as page:
        await expect(page.get_by_text("No models yet")).to_be_visible()
        await page.evaluate(RECORD_ANNOUNCEMENTS)
        for number in range(50):
            (models / f"m{number}.yaml").write_text("provider: scripted\nmodel: echo\n")
        await expect(page.locator(".cards article")).to_have_count(50)
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log-row").first).to_be_visible()
        await page.get_by_label("Find in the log").fill("line")
        await expect(page.locator("#announcer")).to_contain_text(" of ")
        await expect(page.locator(".log-bar")).to_contain_text(re.compile(r"[1-9]\d\d lines"))
        go_file.touch()
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        announcements = await page.evaluate("window.announcements")
        assert 1 <= len(announcements) < MAX_ANNOUNCEMENTS, announcements
        assert any("more changes" in text for text in announcements)


@pytest.mark.parametrize("theme", ["light", "dark"])
@browser_test(150)
async def test_axe_finds_no_violation(tmp_path: Path, theme: str) -> None:
    source = axe_source()
    models = {
        "m": scripted_model("say:hi; usage:1,1; stop:max_tokens"),
        "bad": scripted_model("fail:unavailable"),
        "long": scripted_model("say:begun; hang"),
        "away": {"provider": "no", "model": "x"},
    }
    write_hyperpod_preset(tmp_path / "presets", deploy=PRINT_COLOURS, overrides={"n": {"env": "N", "type": "integer"}})
    # The page's policy rejects a script such as axe.
    options: dict[str, Any] = {"color_scheme": theme, "bypass_csp": True, "reduced_motion": "reduce"}
    async with running_server(tmp_path, models=models) as server, open_page(server.url, **options) as page:
        await page.evaluate(source)
        (tmp_path / "presets/models/wrong.yaml").write_text("provider: [")
        await send_prompt(page, "Hello", "m", "bad", "long")
        await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Answering", "Done"])
        await page.get_by_text("Settings").click()
        await expect_no_violation(page, "playground")
        await page.get_by_role("button", name="As code").click()
        await expect_no_violation(page, "as code")
        await page.get_by_role("button", name="Close").click()
        await page.get_by_role("button", name="Stop long").click()
        await page.goto(f"{server.url}/#/models")
        await expect(page.get_by_role("button", name="1 preset rejected")).to_be_visible()
        await expect_no_violation(page, "models")
        await check_clusters_page(server, page)


async def check_clusters_page(server: RunningServer, page: Page) -> None:
    await page.goto(f"{server.url}/#/clusters/deploy/small")
    await page.get_by_label("n", exact=True).fill("two")
    await expect_no_violation(page, "a wrong override")
    await page.get_by_label("n", exact=True).fill("2")
    await page.get_by_role("button", name="Dry run").click()
    await expect(page.get_by_role("heading", name="Plan")).to_be_visible()
    await expect_no_violation(page, "a plan")
    await page.get_by_role("button", name="Deploy this").click()
    await expect_no_violation(page, "asked before a live deploy")
    await page.get_by_role("dialog").get_by_role("button", name="Deploy", exact=True).click()
    # The log of the live run: the dry run's log has another number of lines.
    await expect(page.locator(".log-bar")).to_contain_text("21 lines")
    await expect(page.locator(".log .badge")).to_have_text("Complete")
    await page.get_by_label("Find in the log").fill("n")
    await expect(page.locator(".log-row[data-highlight=match]")).to_be_visible()
    await page.get_by_label("Go to line").fill("2")
    await page.keyboard.press("Enter")
    await expect(page.locator(".log-row[data-highlight=target]")).to_be_visible()
    await expect_no_violation(page, "a log")
    await page.get_by_role("button", name="Destroy small-stack").click()
    await expect_no_violation(page, "asked before a destroy")


async def expect_no_violation(page: Page, state: str) -> None:
    """Check the page by axe's rules for WCAG 2.2 AA and its best practices."""
    result = await page.evaluate("axe.run({rules: {'target-size': {enabled: true}}})")
    violations = [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in result["violations"]
        for node in rule["nodes"]
    ]
    assert violations == [], state


@pytest.mark.parametrize("width", [360, 768, 1024, 1920])
@browser_test()
async def test_layout_fits_window_width(tmp_path: Path, width: int) -> None:
    models = {
        "a-model-whose-name-is-as-long-as-a-name-may-be-which-is-64-chars": scripted_model("echo"),
        "b": scripted_model("echo"),
    }
    size = {"width": width, "height": 800}
    async with running_server(tmp_path, models=models) as server, open_page(server.url, viewport=size) as page:
        await send_prompt(page, "word" * 200, *models)
        await expect(page.locator(".answer .badge")).to_have_text(["Done", "Done"])
        for page_name in PAGES:
            await page.goto(f"{server.url}/#/{page_name}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
