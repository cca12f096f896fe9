"""The playground in a real browser: prompts, pictures, answers side by side, stopping, resuming, code."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.aio import comes_true
from tests.console.browser import ROOT, ask, browsing, in_browser, needs_model, text_of
from tests.serving import Server, asks, says, serving
from tests.upstream import Upstream, stream_of

RECEIPT = ROOT / "docs" / "receipt.png"
HOSTILE = "<img src=x onerror=alert(1)><script>document.title='taken'</script><b>bold</b>"


@in_browser()
async def test_tokens_are_seen_one_after_another(tmp_path: Path) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    async with Upstream() as up:
        up.answer = stream_of(["Red", first, ", green", second, ", blue."])
        async with serving(tmp_path, models={"m": asks(up.base_url)}) as server, browsing(server.url) as page:
            await ask(page, "Name three colours.", "m")
            answer = page.get_by_role("region", name="Answer of m")
            await expect(answer).to_have_text("Red")
            await expect(page.locator(".answer .badge")).to_have_text("Answering")
            first.set()
            await expect(answer).to_have_text("Red, green")
            second.set()
            await expect(answer).to_have_text("Red, green, blue.")
            await expect(page.locator(".answer .badge")).to_have_text("Done")


@in_browser(120)
@needs_model
async def test_the_embedded_model_answers_token_by_token_about_a_picture(tmp_path: Path) -> None:
    model = {"provider": "local", "model": "SmolLM2-135M-Instruct", "capabilities": ["text", "image", "stream"]}
    async with serving(tmp_path, models={"smollm2": model}) as server, browsing(server.url) as page:
        await page.evaluate(
            """() => {
                window.lengths = [];
                new MutationObserver(() => {
                    const length = document.querySelector('.answer-text')?.textContent.length;
                    if (length && length !== window.lengths.at(-1)) window.lengths.push(length);
                }).observe(document.body, {subtree: true, childList: true, characterData: true});
            }"""
        )
        await page.locator("#media-input").set_input_files(RECEIPT)
        await ask(page, "What is the total?", "smollm2")
        await expect(page.locator(".answer .badge")).to_have_text("Done", timeout=90_000)
        assert "6.00" in await text_of(page, "smollm2")
        lengths = await page.evaluate("window.lengths")
        assert len(lengths) >= 3
        assert lengths == sorted(lengths)
        numbers = await page.locator(".numbers dd").all_inner_texts()
        assert "\u2013" not in numbers  # the dash that stands for a number that is not known


@in_browser()
async def test_several_answer_side_by_side_each_with_its_numbers_and_the_reason_if_it_failed(tmp_path: Path) -> None:
    models = {"good": says("say:fine; usage:3,1"), "bad": says("fail:model_error"), "slow": says("say:begun; hang")}
    async with serving(tmp_path, models=models) as server, browsing(server.url) as page:
        await ask(page, "Hello", "good", "bad", "slow")
        good = page.get_by_role("article", name="good")
        await expect(good.locator(".badge")).to_have_text("Done")
        await expect(good.locator(".numbers")).to_contain_text("3 / 1")
        bad = page.get_by_role("article", name="bad")
        await expect(bad.locator(".badge")).to_have_text("Failed")
        await expect(bad.locator(".answer-error")).to_contain_text("model_error")
        slow = page.get_by_role("article", name="slow")
        await expect(slow.locator(".badge")).to_have_text("Answering")
        await page.get_by_role("button", name="Stop slow").click()
        await expect(slow.locator(".badge")).to_have_text("Stopped")
        await comes_true(lambda: server.scripted.cancelled == 1)


@in_browser()
async def test_all_are_stopped_at_once(tmp_path: Path) -> None:
    models = {"one": says("say:begun; hang"), "two": says("hang")}
    async with serving(tmp_path, models=models) as server, browsing(server.url) as page:
        await ask(page, "Hello", "one", "two")
        await expect(page.get_by_role("region", name="Answer of one")).to_have_text("begun")
        await page.get_by_role("button", name="Stop all").click()
        await expect(page.locator(".answer .badge")).to_have_text(["Stopped", "Stopped"])
        await comes_true(lambda: server.scripted.cancelled == 2)


def cut(server: Server) -> None:
    """Cuts every WebSocket in the middle, as a network does."""
    for one in list(server.services.sockets):
        one.ws_connection.stream.close()  # type: ignore[attr-defined] # Tornado's, under what Services knows of it


@in_browser()
async def test_a_connection_that_is_cut_comes_back_and_the_answer_goes_on_where_it_was(tmp_path: Path) -> None:
    more = asyncio.Event()
    async with Upstream() as up:
        up.answer = stream_of(["Once ", "upon ", more, "a ", "time."])
        async with serving(tmp_path, models={"m": asks(up.base_url)}) as server, browsing(server.url) as page:
            await ask(page, "A story", "m")
            answer = page.get_by_role("region", name="Answer of m")
            await expect(answer).to_contain_text("Once upon")
            cut(server)
            await expect(page.locator("#connection")).to_have_text("Offline")
            more.set()
            await expect(answer).to_have_text("Once upon a time.")
            await expect(page.locator("#connection")).to_have_text("Connected")
            await expect(page.locator(".answer .note")).to_contain_text("went on where it was")
            assert len(up.requests) == 1


@in_browser()
async def test_an_answer_that_was_resumed_can_be_stopped(tmp_path: Path) -> None:
    models = {"m": says("say:begun; hang")}
    async with serving(tmp_path, models=models) as server, browsing(server.url) as page:
        await ask(page, "Hello", "m")
        await expect(page.get_by_role("region", name="Answer of m")).to_have_text("begun")
        cut(server)
        await expect(page.locator(".answer .note")).to_contain_text("went on where it was")
        await page.get_by_role("button", name="Stop m").click()
        await expect(page.locator(".answer .badge")).to_have_text("Stopped")
        await comes_true(lambda: server.scripted.cancelled == 1)


@in_browser()
async def test_an_answer_that_is_markup_is_shown_as_text(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"echo": says("echo")}) as server, browsing(server.url) as page:
        await ask(page, HOSTILE, "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        assert await text_of(page, "echo") == HOSTILE
        assert await page.locator(".run img, .run script, .run b").count() == 0
        assert await page.title() == "Playground · Forgeline"


@in_browser()
async def test_pictures_are_picked_shown_removed_and_refused(tmp_path: Path) -> None:
    text, video = tmp_path / "notes.txt", tmp_path / "clip.mp4"
    text.write_text("no picture")
    video.write_bytes(b"\0\0\0\x18ftypmp42")
    async with serving(tmp_path, models={"echo": says("echo")}) as server, browsing(server.url) as page:
        strip, picker = page.get_by_role("list", name="Pictures and video"), page.locator("#media-input")
        await picker.set_input_files(RECEIPT)
        await expect(strip).to_contain_text("receipt.png")
        await picker.set_input_files(text)
        await expect(page.get_by_role("alert").filter(has_text="notes.txt is no PNG")).to_be_visible()
        await picker.set_input_files(video)
        await expect(page.get_by_role("alert").filter(has_text="One video, or pictures")).to_be_visible()
        await page.get_by_role("button", name="Remove receipt.png").click()
        await expect(strip).to_be_hidden()
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("alert").filter(has_text="Write a prompt")).to_be_visible()


@in_browser()
async def test_a_picture_is_dropped_and_pasted(tmp_path: Path) -> None:
    give = """kind => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array([137, 80])], kind + '.png', {type: 'image/png'}));
        const zone = document.querySelector('.composer-zone');
        const event = kind === 'drop'
            ? new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});
        zone.dispatchEvent(event);
    }"""
    async with serving(tmp_path, models={"echo": says("echo")}) as server, browsing(server.url) as page:
        for kind in ("drop", "paste"):
            await page.evaluate(give, kind)
            await expect(page.locator(".media-strip")).to_contain_text(f"{kind}.png")


@in_browser()
async def test_the_last_runs_are_kept_over_a_reload_and_used_again(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"echo": says("echo")}) as server, browsing(server.url) as page:
        await ask(page, "The first question", "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        await page.reload()
        await expect(page.locator(".prompt")).to_have_text("The first question")
        assert await text_of(page, "echo") == "The first question"
        await page.get_by_role("button", name="Use again").click()
        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("The first question")
        await page.get_by_text("Last runs").click()
        await page.get_by_role("button", name="Clear").click()
        await page.reload()
        await expect(page.get_by_text("Nothing asked yet")).to_be_visible()


# What has moved, each time: by how much, and what.
SHIFTS = """() => {
    window.shifts = [];
    const named = ({node}) => node?.className || node?.nodeName;
    const observer = new PerformanceObserver((list) => {
        for (const {value, sources} of list.getEntries()) window.shifts.push([value, sources.map(named)]);
    });
    observer.observe({type: 'layout-shift'});
}"""
STILL = 0.01  # of the window times the way it went: a tenth of what is taken for good


@pytest.mark.parametrize("width", [360, 1024, 1920])
@in_browser()
async def test_nothing_moves_while_tokens_arrive(tmp_path: Path, width: int) -> None:
    """Not the cards, nor what is in them, while they begin, grow for four hundred lines, end, and fail half way."""
    models = {
        "long": says("chunks:4000; usage:10,4000"),
        "broken": says("say:so far, so good; fail:model_error"),
        "bad": says("fail:unavailable"),
    }
    size = {"width": width, "height": 800}
    async with serving(tmp_path, models=models) as server, browsing(server.url, viewport=size) as page:
        await ask(page, "Before", "bad")
        await expect(page.locator(".answer .badge")).to_have_text("Failed")
        await page.evaluate(SHIFTS)
        await ask(page, "Go on", *models)
        await expect(page.locator(".prompt")).to_have_text("Go on")
        cards = [page.get_by_role("article", name=name) for name in models]
        before = [await card.bounding_box() for card in cards]
        await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Failed", "Done"])
        assert [await card.bounding_box() for card in cards] == before
        shifts = await page.evaluate("window.shifts")
        assert sum(shift for shift, _ in shifts) < STILL, shifts
