"""The models and the presets in a real browser: what there is, and what is saved, seen within a second."""

from __future__ import annotations

from pathlib import Path

import yaml
from playwright.async_api import expect

from tests.console.browser import ask, browsing, in_browser
from tests.serving import says, serving

SOON = 1000  # milliseconds, in which what was saved has to be seen
HOSTILE = "<img src=x onerror=alert(1)>"


@in_browser()
async def test_every_model_is_shown_with_what_it_can_and_how_it_does(tmp_path: Path) -> None:
    models = {
        "m": says("say:hi", limits={"max_tokens": 1234}),
        "failing": says("fail:model_error", breaker={"failures": 1, "seconds": 60}),
        "away": {"provider": "of-another-age", "model": "x"},
    }
    stages = ["decode_frames", "route_model", "limit", "circuit_breaker", "invoke", "normalize_envelope"]
    async with serving(tmp_path, models=models, stages=stages) as server, browsing(server.url) as page:
        await ask(page, "Hello", "m", "failing")
        await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Done"])
        await page.get_by_role("link", name="Models").click()
        card = page.get_by_role("article", name="m", exact=True)
        await expect(card).to_contain_text("at most 1,234")
        await expect(card.get_by_role("img", name="Last 1 answers")).to_be_visible()
        await expect(card).to_contain_text("first token")
        await expect(page.get_by_role("article", name="failing")).to_contain_text("Open: not asked for a while")
        await expect(page.get_by_role("article", name="failing")).to_contain_text("1 of 1 failed")
        await expect(page.get_by_role("article", name="away")).to_contain_text("of-another-age")


@in_browser()
async def test_a_preset_that_is_saved_is_seen_within_a_second(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:hi")}) as server, browsing(server.url, "models") as page:
        await expect(page.get_by_role("article", name="m", exact=True)).to_be_visible()
        (tmp_path / "presets/models/new.yaml").write_text(yaml.safe_dump(says("say:new")))
        await expect(page.get_by_role("article", name="new")).to_be_visible(timeout=SOON)
        await expect(page.locator(".changes li").first).to_contain_text("Added")
        (tmp_path / "presets/models/new.yaml").unlink()
        await expect(page.get_by_role("article", name="new")).to_be_hidden(timeout=SOON)


@in_browser()
async def test_a_rejected_preset_is_seen_with_its_file_and_line_and_so_is_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:hi")}) as server, browsing(server.url, "models") as page:
        file = page.locator(".files li").filter(has_text="models/m.yaml")
        await expect(file).to_contain_text("in force")
        path = tmp_path / "presets/models/m.yaml"
        good = path.read_text()
        path.write_text(f"provider: scripted\nmodel: x\n{HOSTILE!r}: 1\n")
        await expect(file).to_contain_text("Rejected", timeout=SOON)
        await expect(file).to_contain_text("models/m.yaml:3:")
        await expect(file).to_contain_text(HOSTILE)
        await page.get_by_role("button", name="1 preset rejected").click()
        await expect(page.get_by_role("heading", name="Presets")).to_be_in_viewport()
        await expect(file).to_be_in_viewport()
        assert await page.locator(".presets img").count() == 0
        path.write_text(good)
        await expect(file).to_contain_text("in force", timeout=SOON)


@in_browser()
async def test_without_a_model_the_page_says_what_to_do(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, browsing(server.url, "models") as page:
        await expect(page.get_by_text("No models yet")).to_be_visible()
        await page.get_by_role("link", name="Playground").click()
        await expect(page.get_by_text("No preset defines a model")).to_be_visible()
        await expect(page.get_by_text("Nothing asked yet")).to_be_visible()
