"""A hundred thousand lines of a log: what is in the page, what it holds, and how long a frame takes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.console.browser import browsing, held, in_browser
from tests.jobs import submit, write_hyperpod
from tests.serving import serving

LINES = 100_000
FRAME = 50  # milliseconds that the median frame may take: three of a screen, without a graphics card on a busy machine
PAUSE = 1_000  # milliseconds for which nothing may stand still: a search looks at every line
MOST_ROWS = 120  # in the page, of all lines
MOST_HELD = 60_000_000  # bytes: the log itself is a sixth of that
KEPT = 200_000  # lines

# Collects the times between frames, until window.framesOf() is called.
WATCH = """() => {
    window.times = [];
    let last = performance.now();
    let going = true;
    const frame = (now) => {
        window.times.push(now - last);
        last = now;
        if (going) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    window.framesOf = () => {
        going = false;
        const sorted = [...window.times].sort((one, other) => one - other);
        const at = (part) => Math.round(sorted[Math.floor((sorted.length - 1) * part)]);
        return {frames: sorted.length, median: at(0.5), p95: at(0.95), longest: at(1)};
    };
}"""
SCROLL = """async () => {
    const rows = document.querySelector('.log-rows');
    let most = 0;
    for (let step = 0; step <= 240; step += 1) {
        rows.scrollTop = rows.scrollHeight * (step <= 120 ? step / 120 : (240 - step) / 120);
        await new Promise(requestAnimationFrame);
        most = Math.max(most, document.querySelectorAll('.log-row').length);
    }
    return most;
}"""
ORDER = "[...document.querySelectorAll('.log-number')].map((number) => Number(number.textContent))"


async def watch(page: Page) -> None:
    await page.evaluate(WATCH)


async def frames(page: Page, what: str) -> dict[str, Any]:
    """The frames since `watch`, in milliseconds, printed."""
    found: dict[str, Any] = await page.evaluate("window.framesOf()")
    print(f"{what}: {found}")
    return found


@in_browser(300)
async def test_a_hundred_thousand_lines_come_and_scroll_smoothly_and_stay_small(tmp_path: Path) -> None:
    lines = f"seq 1 {LINES} | sed 's/.*/\\x1b[32m&\\x1b[0m a line of a log that is long, but no line of it is lost/'"
    write_hyperpod(tmp_path / "presets", deploy=lines)
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        before = await held(page)
        await watch(page)
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete", timeout=120_000)
        await expect(page.locator(".log-bar")).to_contain_text(f"{LINES:,} lines")
        assert (await frames(page, f"{LINES:,} lines come"))["median"] < FRAME
        await watch(page)
        most = await page.evaluate(SCROLL)
        assert (await frames(page, "all of them are scrolled through, and back"))["median"] < FRAME
        assert most < MOST_ROWS
        await watch(page)
        await page.get_by_label("Find in the log").fill("99999 a line")
        found = page.locator(".log-row[data-at=found]")
        await expect(found).to_contain_text("99999 a line")
        await expect(found.locator("mark")).to_have_text(["99999", " a line"])
        assert (await frames(page, "a text is found near the end"))["longest"] < PAUSE
        after = await held(page)
        print(f"{most} rows at most, {after.nodes} nodes, {(after.scripts - before.scripts) / 1e6:.1f} MB")
        assert after.scripts - before.scripts < MOST_HELD


@in_browser()
async def test_the_lines_in_the_page_stand_in_their_order_whichever_way_one_came(tmp_path: Path) -> None:
    """As a screen reader reads them, and as a selection is copied."""
    write_hyperpod(tmp_path / "presets", deploy="for i in $(seq 1 3000); do echo line $i; done")
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        for number in (1500, 1490, 1520, 1):
            await page.get_by_label("Go to line").fill(str(number))
            await page.keyboard.press("Enter")
            await expect(page.locator(".log-row[data-at=target] .log-text")).to_have_text(f"line {number}")
            numbers = await page.evaluate(ORDER)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@in_browser()
async def test_a_log_without_an_end_is_kept_within_a_bound(tmp_path: Path) -> None:
    fill = """async (lines) => {
        const {LogBuffer} = await import('/static/js/log/buffer.js');
        const buffer = new LogBuffer();
        for (let at = 1; at <= lines; at += 1000) {
            buffer.append(Array.from({length: 1000}, (_, more) => `line ${at + more}\\n`).join(''));
        }
        return {kept: buffer.end - buffer.dropped, end: buffer.end, last: buffer.line(buffer.end),
            first: buffer.line(buffer.dropped + 1), dropped: buffer.dropped};
    }"""
    async with serving(tmp_path) as server, browsing(server.url) as page:
        kept = await page.evaluate(fill, 5 * KEPT)
        assert kept["end"] == 5 * KEPT
        assert KEPT * 0.9 <= kept["kept"] <= KEPT
        assert kept["last"] == f"line {5 * KEPT}"
        assert kept["first"] == f"line {kept['dropped'] + 1}"
