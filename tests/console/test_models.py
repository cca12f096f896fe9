"""The models page in a real browser: model cards, and saved presets that appear within a second."""

from __future__ import annotations

from pathlib import Path

import yaml
from playwright.async_api import expect

from tests.console.browser import browser_test, open_page, send_prompt
from tests.running_server import running_server, scripted_model

SAVE_TIMEOUT = 1000  # milliseconds from a save to its appearance
HOSTILE = "<img src=x onerror=alert(1)>"


@browser_test()
async def test_models_page_shows_limits_breaker_and_recent_answers(tmp_path: Path) -> None:
    models = {
        "m": scripted_model("say:hi", limits={"max_tokens": 1234}),
        "failing": scripted_model("fail:model_error", breaker={"failures": 1, "seconds": 60}),
        "away": {"provider": "of-another-age", "model": "x"},
    }
    stages = ["decode_frames", "route_model", "limit", "circuit_breaker", "invoke", "normalize_envelope"]
    async with running_server(tmp_path, models=models, stages=stages) as server, open_page(server.url) as page:
        await send_prompt(page, "Hello", "m", "failing")
        await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Done"])
        await page.get_by_role("link", name="Models").click()
        card = page.get_by_role("article", name="m", exact=True)
        await expect(card).to_contain_text("at most 1,234")
        await expect(card.get_by_role("img", name="Last 1 answers")).to_be_visible()
        await expect(card).to_contain_text("first token")
        await expect(page.get_by_role("article", name="failing")).to_contain_text("Open: not asked for a while")
        await expect(page.get_by_role("article", name="failing")).to_contain_text("1 of 1 failed")
        await expect(page.get_by_role("article", name="away")).to_contain_text("of-another-age")


@browser_test()
async def test_preset_save_and_delete_appear_within_a_second(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:hi")}) as server,
        open_page(server.url, "models") as page,
    ):
        await expect(page.get_by_role("article", name="m", exact=True)).to_be_visible()
        (tmp_path / "presets/models/new.yaml").write_text(yaml.safe_dump(scripted_model("say:new")))
        await expect(page.get_by_role("article", name="new")).to_be_visible(timeout=SAVE_TIMEOUT)
        await expect(page.locator(".changes li").first).to_contain_text("Added")
        (tmp_path / "presets/models/new.yaml").unlink()
        await expect(page.get_by_role("article", name="new")).to_be_hidden(timeout=SAVE_TIMEOUT)


@browser_test()
async def test_preset_rejection_shows_file_and_line_until_fixed(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:hi")}) as server,
        open_page(server.url, "models") as page,
    ):
        file = page.locator(".files li").filter(has_text="models/m.yaml")
        await expect(file).to_contain_text("in force")
        path = tmp_path / "presets/models/m.yaml"
        valid_text = path.read_text()
        path.write_text(f"provider: scripted\nmodel: x\n{HOSTILE!r}: 1\n")
        await expect(file).to_contain_text("Rejected", timeout=SAVE_TIMEOUT)
        await expect(file).to_contain_text("models/m.yaml:3:")
        await expect(file).to_contain_text(HOSTILE)
        await page.get_by_role("button", name="1 preset rejected").click()
        await expect(page.get_by_role("heading", name="Presets")).to_be_in_viewport()
        await expect(file).to_be_in_viewport()
        assert await page.locator(".presets img").count() == 0
        path.write_text(valid_text)
        await expect(file).to_contain_text("in force", timeout=SAVE_TIMEOUT)


@browser_test()
async def test_models_page_without_models_shows_hint(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_page(server.url, "models") as page:
        await expect(page.get_by_text("No models yet")).to_be_visible()
        await page.get_by_role("link", name="Playground").click()
        await expect(page.get_by_text("No preset defines a model")).to_be_visible()
        await expect(page.get_by_text("Nothing asked yet")).to_be_visible()
