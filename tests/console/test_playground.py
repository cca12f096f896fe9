"""The playground page in a real browser: prompts, pictures, answers side by side, stop, resume, history."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.async_tests import wait_until
from tests.console.browser import ROOT, answer_text, browser_test, needs_model, open_page, send_prompt
from tests.running_server import RunningServer, running_server, scripted_model, upstream_model
from tests.upstream import Upstream, stream_response

RECEIPT = ROOT / "docs" / "receipt.png"
HOSTILE = "<img src=x onerror=alert(1)><script>document.title='taken'</script><b>bold</b>"


@browser_test()
async def test_answer_text_grows_token_by_token(tmp_path: Path) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    async with Upstream() as up:
        up.response = stream_response(["Red", first, ", green", second, ", blue."])
        async with (
            running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server,
            open_page(server.url) as page,
        ):
            await send_prompt(page, "Name three colours.", "m")
            answer = page.get_by_role("region", name="Answer of m")
            await expect(answer).to_have_text("Red")
            await expect(page.locator(".answer .badge")).to_have_text("Answering")
            first.set()
            await expect(answer).to_have_text("Red, green")
            second.set()
            await expect(answer).to_have_text("Red, green, blue.")
            await expect(page.locator(".answer .badge")).to_have_text("Done")


@browser_test(120)
@needs_model
async def test_embedded_model_streams_answer_about_picture(tmp_path: Path) -> None:
    model = {"provider": "local", "model": "SmolLM2-135M-Instruct", "capabilities": ["text", "image", "stream"]}
    async with running_server(tmp_path, models={"smollm2": model}) as server, open_page(server.url) as page:
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
        await send_prompt(page, "What is the total?", "smollm2")
        await expect(page.locator(".answer .badge")).to_have_text("Done", timeout=90_000)
        assert "6.00" in await answer_text(page, "smollm2")
        lengths = await page.evaluate("window.lengths")
        assert len(lengths) >= 3
        assert lengths == sorted(lengths)
        numbers = await page.locator(".metrics dd").all_inner_texts()
        assert "\u2013" not in numbers  # the dash of an unknown number


@browser_test()
async def test_multiple_models_show_metrics_errors_and_stop_separately(tmp_path: Path) -> None:
    models = {
        "good": scripted_model("say:fine; usage:3,1"),
        "bad": scripted_model("fail:model_error"),
        "slow": scripted_model("say:begun; hang"),
    }
    async with running_server(tmp_path, models=models) as server, open_page(server.url) as page:
        await send_prompt(page, "Hello", "good", "bad", "slow")
        good = page.get_by_role("article", name="good")
        await expect(good.locator(".badge")).to_have_text("Done")
        await expect(good.locator(".metrics")).to_contain_text("3 / 1")
        bad = page.get_by_role("article", name="bad")
        await expect(bad.locator(".badge")).to_have_text("Failed")
        await expect(bad.locator(".answer-error")).to_contain_text("model_error")
        slow = page.get_by_role("article", name="slow")
        await expect(slow.locator(".badge")).to_have_text("Answering")
        await page.get_by_role("button", name="Stop slow").click()
        await expect(slow.locator(".badge")).to_have_text("Stopped")
        await wait_until(lambda: server.scripted.cancelled == 1)


@browser_test()
async def test_stop_all_cancels_every_stream(tmp_path: Path) -> None:
    models = {"one": scripted_model("say:begun; hang"), "two": scripted_model("hang")}
    async with running_server(tmp_path, models=models) as server, open_page(server.url) as page:
        await send_prompt(page, "Hello", "one", "two")
        await expect(page.get_by_role("region", name="Answer of one")).to_have_text("begun")
        await page.get_by_role("button", name="Stop all").click()
        await expect(page.locator(".answer .badge")).to_have_text(["Stopped", "Stopped"])
        await wait_until(lambda: server.scripted.cancelled == 2)


def drop_connections(server: RunningServer) -> None:
    """Drop the TCP connection of every WebSocket, as a network failure does."""
    for websocket in list(server.services.websockets):
        websocket.ws_connection.stream.close()  # type: ignore[attr-defined] # Tornado's, under what Services knows of it


@browser_test()
async def test_lost_connection_reconnects_and_resumes_answer(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up:
        up.response = stream_response(["Once ", "upon ", gate, "a ", "time."])
        async with (
            running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server,
            open_page(server.url) as page,
        ):
            await send_prompt(page, "A story", "m")
            answer = page.get_by_role("region", name="Answer of m")
            await expect(answer).to_contain_text("Once upon")
            drop_connections(server)
            await expect(page.locator("#connection")).to_have_text("Offline")
            gate.set()
            await expect(answer).to_have_text("Once upon a time.")
            await expect(page.locator("#connection")).to_have_text("Connected")
            await expect(page.locator(".answer .note")).to_contain_text("went on where it was")
            assert len(up.requests) == 1


@browser_test()
async def test_resumed_answer_can_be_stopped(tmp_path: Path) -> None:
    models = {"m": scripted_model("say:begun; hang")}
    async with running_server(tmp_path, models=models) as server, open_page(server.url) as page:
        await send_prompt(page, "Hello", "m")
        await expect(page.get_by_role("region", name="Answer of m")).to_have_text("begun")
        drop_connections(server)
        await expect(page.locator(".answer .note")).to_contain_text("went on where it was")
        await page.get_by_role("button", name="Stop m").click()
        await expect(page.locator(".answer .badge")).to_have_text("Stopped")
        await wait_until(lambda: server.scripted.cancelled == 1)


@browser_test()
async def test_answer_markup_is_shown_as_text(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"echo": scripted_model("echo")}) as server,
        open_page(server.url) as page,
    ):
        await send_prompt(page, HOSTILE, "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        assert await answer_text(page, "echo") == HOSTILE
        assert await page.locator(".run img, .run script, .run b").count() == 0
        assert await page.title() == "Playground · Forgeline"


@browser_test()
async def test_media_input_pick_remove_and_reject(tmp_path: Path) -> None:
    text, video = tmp_path / "notes.txt", tmp_path / "clip.mp4"
    text.write_text("no picture")
    video.write_bytes(b"\0\0\0\x18ftypmp42")
    async with (
        running_server(tmp_path, models={"echo": scripted_model("echo")}) as server,
        open_page(server.url) as page,
    ):
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


@browser_test()
async def test_media_input_drop_and_paste(tmp_path: Path) -> None:
    transfer_script = """kind => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array([137, 80])], kind + '.png', {type: 'image/png'}));
        const zone = document.querySelector('.composer-zone');
        const event = kind === 'drop'
            ? new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});
        zone.dispatchEvent(event);
    }"""
    async with (
        running_server(tmp_path, models={"echo": scripted_model("echo")}) as server,
        open_page(server.url) as page,
    ):
        for kind in ("drop", "paste"):
            await page.evaluate(transfer_script, kind)
            await expect(page.locator(".media-strip")).to_contain_text(f"{kind}.png")


@browser_test()
async def test_run_history_survives_reload_and_can_be_reused(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"echo": scripted_model("echo")}) as server,
        open_page(server.url) as page,
    ):
        await send_prompt(page, "The first question", "echo")
        await expect(page.locator(".answer .badge")).to_have_text("Done")
        await page.reload()
        await expect(page.locator(".prompt")).to_have_text("The first question")
        assert await answer_text(page, "echo") == "The first question"
        await page.get_by_role("button", name="Use again").click()
        await expect(page.get_by_label("Prompt", exact=True)).to_have_value("The first question")
        await page.get_by_text("Last runs").click()
        await page.get_by_role("button", name="Clear").click()
        await page.reload()
        await expect(page.get_by_text("Nothing asked yet")).to_be_visible()


# Records layout shifts: the size of each, and the moved elements.
RECORD_SHIFTS = """() => {
    window.shifts = [];
    const nameOf = ({node}) => node?.className || node?.nodeName;
    const observer = new PerformanceObserver((list) => {
        for (const {value, sources} of list.getEntries()) window.shifts.push([value, sources.map(nameOf)]);
    });
    observer.observe({type: 'layout-shift'});
}"""
MAX_SHIFT = 0.01  # cumulative layout shift: a tenth of the usual limit for "good"


@pytest.mark.parametrize("width", [360, 1024, 1920])
@browser_test()
async def test_layout_does_not_shift_while_streaming(tmp_path: Path, width: int) -> None:
    """Neither cards nor their contents move while answers start, grow to four hundred lines, end, or fail midway."""
    models = {
        "long": scripted_model("chunks:4000; usage:10,4000"),
        "broken": scripted_model("say:so far, so good; fail:model_error"),
        "bad": scripted_model("fail:unavailable"),
    }
    size = {"width": width, "height": 800}
    async with running_server(tmp_path, models=models) as server, open_page(server.url, viewport=size) as page:
        await send_prompt(page, "Before", "bad")
        await expect(page.locator(".answer .badge")).to_have_text("Failed")
        await page.evaluate(RECORD_SHIFTS)
        await send_prompt(page, "Go on", *models)
        await expect(page.locator(".prompt")).to_have_text("Go on")
        cards = [page.get_by_role("article", name=name) for name in models]
        before = [await card.bounding_box() for card in cards]
        await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Failed", "Done"])
        assert [await card.bounding_box() for card in cards] == before
        shifts = await page.evaluate("window.shifts")
        assert sum(shift for shift, _ in shifts) < MAX_SHIFT, shifts
