"""Who may see what, and by which means: API keys, the keyboard, screen readers, both themes, every width."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.console.browser import ask, axe, browsing, chromium, in_browser
from tests.jobs import submit, write_hyperpod
from tests.serving import Server, says, serving

KEYS = {"FORGELINE_API_KEYS": "the key/+é"}
COLOURS = (
    "for n in 1 2 3 7 30 31 32 33 34 35 36 37 90 97 41 42 43 44 45 46 47; do printf '\\033[%dmn\\033[0m\\n' $n; done"
)
PLACES = ("playground", "clusters", "models")
FEW = 12  # that a screen reader may be told about hundreds of changes
# Which ways a text might take are open.
ATTEMPTS = """() => {
    const open = [];
    const attempt = (name, act, isDone) => {
        try { act(); } catch { return; }
        if (isDone()) open.push(name);
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
# What every live region says, as it says it.
LISTEN = """() => {
    window.told = [];
    const region = (node) => node.parentElement?.closest('[role=status], [role=alert], [aria-live]');
    new MutationObserver((changes) => {
        const regions = new Set(changes.map((change) => region(change.target) ?? change.target));
        for (const one of regions) if (one.matches('[role=status], [role=alert]')) window.told.push(one.textContent);
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@in_browser()
async def test_a_key_is_asked_for_kept_for_the_tab_and_never_put_into_an_address(tmp_path: Path) -> None:
    asked: list[str] = []
    async with (
        serving(tmp_path, models={"m": says("say:hi")}, environ=KEYS) as server,
        browsing(server.url) as page,
    ):
        page.on("request", lambda request: asked.append(request.url))
        dialog = page.get_by_role("dialog", name="API key")
        await dialog.get_by_label("Key", exact=True).fill("a wrong one")
        await dialog.get_by_role("button", name="Enter").click()
        await expect(dialog.get_by_role("alert")).to_have_text("This key is not let in.")
        await dialog.get_by_label("Key", exact=True).fill(KEYS["FORGELINE_API_KEYS"])
        await dialog.get_by_role("button", name="Enter").click()
        await expect(page.locator("#connection")).to_have_text("Connected")
        await ask(page, "Hello", "m")
        await expect(page.get_by_role("region", name="Answer of m")).to_have_text("hi")
        await page.reload()
        await expect(page.locator("#connection")).to_have_text("Connected")
        other = await page.context.new_page()
        await other.goto(server.url)
        await expect(other.get_by_role("dialog", name="API key")).to_be_visible()
        assert [url for url in asked if "key" in url.replace("/js/key.js", "")] == []
        assert "the key" not in await page.evaluate("JSON.stringify(localStorage)")


@in_browser()
async def test_a_prompt_is_sent_stopped_and_read_by_the_keyboard_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:begun; hang")}) as server, browsing(server.url) as page:
        await page.locator("input[name=model]").wait_for()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
        assert page.url.endswith("/#/playground")  # the address is the place's, also after a skip
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
    wanted = page.get_by_role("button", name=name)
    for _ in range(60):
        if await wanted.evaluate("one => one === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not reach {name}")


@in_browser()
async def test_the_theme_is_the_systems_until_somebody_chooses(tmp_path: Path) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    async with serving(tmp_path) as server, browsing(server.url, color_scheme="dark") as page:
        dark = await page.evaluate(ground)
        await page.get_by_role("button", name="Theme: system").click()
        light = await page.evaluate(ground)
        assert light != dark
        await page.reload()
        assert await page.evaluate(ground) == light
        await page.get_by_role("button", name="Theme: light").click()
        assert await page.evaluate(ground) == dark


@in_browser()
async def test_the_pages_policy_lets_no_text_become_markup_a_script_or_a_style(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, chromium() as browser:
        page = await browser.new_page()
        await page.goto(server.url)
        await expect(page.locator("#connection")).to_have_text("Connected")
        assert await page.evaluate(ATTEMPTS) == []


@in_browser()
async def test_a_busy_feed_floods_no_screen_reader(tmp_path: Path) -> None:
    """Fifty presets that are saved and a log that is searched while it grows are told in a few sentences."""
    go, models = tmp_path / "go", tmp_path / "presets" / "models"
    write_hyperpod(tmp_path / "presets", deploy=f"until [ -e {go} ]; do echo line; sleep 0.01; done", timeout=120)
    async with serving(tmp_path) as server, browsing(server.url, "models") as page:
        await expect(page.get_by_text("No models yet")).to_be_visible()
        await page.evaluate(LISTEN)
        for number in range(50):
            (models / f"m{number}.yaml").write_text("provider: scripted\nmodel: echo\n")
        await expect(page.locator(".cards article")).to_have_count(50)
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log-row").first).to_be_visible()
        await page.get_by_label("Find in the log").fill("line")
        await expect(page.locator("#announcer")).to_contain_text(" of ")
        await expect(page.locator(".log-bar")).to_contain_text(re.compile(r"[1-9]\d\d lines"))
        go.touch()
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        told = await page.evaluate("window.told")
        assert 1 <= len(told) < FEW, told
        assert any("more changes" in one for one in told)


@pytest.mark.parametrize("theme", ["light", "dark"])
@in_browser(150)
async def test_axe_finds_no_fault(tmp_path: Path, theme: str) -> None:
    source = axe()
    models = {
        "m": says("say:hi; usage:1,1; stop:max_tokens"),
        "bad": says("fail:unavailable"),
        "long": says("say:begun; hang"),
        "away": {"provider": "no", "model": "x"},
    }
    write_hyperpod(tmp_path / "presets", deploy=COLOURS, overrides={"n": {"env": "N", "type": "integer"}})
    # axe comes from elsewhere, which the page's policy rightly refuses.
    options: dict[str, Any] = {"color_scheme": theme, "bypass_csp": True, "reduced_motion": "reduce"}
    async with serving(tmp_path, models=models) as server, browsing(server.url, **options) as page:
        await page.evaluate(source)
        (tmp_path / "presets/models/wrong.yaml").write_text("provider: [")
        await ask(page, "Hello", "m", "bad", "long")
        await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Answering", "Done"])
        await page.get_by_text("Settings").click()
        await expect_no_fault(page, "playground")
        await page.get_by_role("button", name="As code").click()
        await expect_no_fault(page, "as code")
        await page.get_by_role("button", name="Close").click()
        await page.get_by_role("button", name="Stop long").click()
        await page.goto(f"{server.url}/#/models")
        await expect(page.get_by_role("button", name="1 preset rejected")).to_be_visible()
        await expect_no_fault(page, "models")
        await clusters_without_fault(server, page)


async def clusters_without_fault(server: Server, page: Page) -> None:
    await page.goto(f"{server.url}/#/clusters/deploy/small")
    await page.get_by_label("n", exact=True).fill("two")
    await expect_no_fault(page, "a wrong override")
    await page.get_by_label("n", exact=True).fill("2")
    await page.get_by_role("button", name="Dry run").click()
    await expect(page.get_by_role("heading", name="Plan")).to_be_visible()
    await expect_no_fault(page, "a plan")
    await page.get_by_role("button", name="Deploy this").click()
    await expect_no_fault(page, "asked before a live deploy")
    await page.get_by_role("dialog").get_by_role("button", name="Deploy", exact=True).click()
    await expect(page.locator(".log-bar")).to_contain_text("21 lines")  # not the dry run's log any more
    await expect(page.locator(".log .badge")).to_have_text("Complete")
    await page.get_by_label("Find in the log").fill("n")
    await expect(page.locator(".log-row[data-at=found]")).to_be_visible()
    await page.get_by_label("Go to line").fill("2")
    await page.keyboard.press("Enter")
    await expect(page.locator(".log-row[data-at=target]")).to_be_visible()
    await expect_no_fault(page, "a log")
    await page.get_by_role("button", name="Destroy small-stack").click()
    await expect_no_fault(page, "asked before a destroy")


async def expect_no_fault(page: Page, where: str) -> None:
    """What axe finds wrong, by WCAG 2.2 AA and its own best practices."""
    found = await page.evaluate("axe.run({rules: {'target-size': {enabled: true}}})")
    faults = [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    assert faults == [], where


@pytest.mark.parametrize("width", [360, 768, 1024, 1920])
@in_browser()
async def test_nothing_is_wider_than_the_window(tmp_path: Path, width: int) -> None:
    models = {"a-model-whose-name-is-as-long-as-a-name-may-be-which-is-64-chars": says("echo"), "b": says("echo")}
    size = {"width": width, "height": 800}
    async with serving(tmp_path, models=models) as server, browsing(server.url, viewport=size) as page:
        await ask(page, "word" * 200, *models)
        await expect(page.locator(".answer .badge")).to_have_text(["Done", "Done"])
        for place in PLACES:
            await page.goto(f"{server.url}/#/{place}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
