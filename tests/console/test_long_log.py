"""A log of 100,000 lines: rows in the DOM, memory, and frame times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.console.browser import browser_test, measure_memory, open_page
from tests.jobs import submit, write_hyperpod_preset
from tests.running_server import running_server

LINES = 100_000
MAX_FRAME_MS = 50  # of the median frame: three frames of a screen, without a graphics card on a busy machine
MAX_PAUSE_MS = 1_000  # of the longest frame: a search reads every line
MAX_ROWS = 120  # in the DOM
MAX_MEMORY = 60_000_000  # bytes; six times the log itself
MAX_LINES = 200_000  # that the page keeps

# Collects the times between frames, until window.framesOf() is called.
RECORD_FRAMES = """() => {
    window.times = [];
    let last = performance.now();
    let isRunning = true;
    const frame = (now) => {
        window.times.push(now - last);
        last = now;
        if (isRunning) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    window.framesOf = () => {
        isRunning = false;
        const sorted = [...window.times].sort((a, b) => a - b);
        const quantile = (part) => Math.round(sorted[Math.floor((sorted.length - 1) * part)]);
        return {frames: sorted.length, median: quantile(0.5), p95: quantile(0.95), longest: quantile(1)};
    };
}"""
SCROLL_SCRIPT = """async () => {
    const rows = document.querySelector('.log-rows');
    let maxRows = 0;
    for (let step = 0; step <= 240; step += 1) {
        rows.scrollTop = rows.scrollHeight * (step <= 120 ? step / 120 : (240 - step) / 120);
        await new Promise(requestAnimationFrame);
        maxRows = Math.max(maxRows, document.querySelectorAll('.log-row').length);
    }
    return maxRows;
}"""
LINE_NUMBERS = "[...document.querySelectorAll('.log-number')].map((number) => Number(number.textContent))"


async def record_frames(page: Page) -> None:
    await page.evaluate(RECORD_FRAMES)


async def frame_times(page: Page, label: str) -> dict[str, Any]:
    """Print and return the frame times since `record_frames`, in milliseconds."""
    result: dict[str, Any] = await page.evaluate("window.framesOf()")
    print(f"{label}: {result}")
    return result


@browser_test(300)
async def test_long_log_frames_are_short_and_memory_is_bounded(tmp_path: Path) -> None:
    lines = f"seq 1 {LINES} | sed 's/.*/\\x1b[32m&\\x1b[0m a line of a log that is long, but no line of it is lost/'"
    write_hyperpod_preset(tmp_path / "presets", deploy=lines)
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        before = await measure_memory(page)
        await record_frames(page)
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete", timeout=120_000)
        await expect(page.locator(".log-bar")).to_contain_text(f"{LINES:,} lines")
        assert (await frame_times(page, f"{LINES:,} lines come"))["median"] < MAX_FRAME_MS
        await record_frames(page)
        max_rows = await page.evaluate(SCROLL_SCRIPT)
        assert (await frame_times(page, "all of them are scrolled through, and back"))["median"] < MAX_FRAME_MS
        assert max_rows < MAX_ROWS
        await record_frames(page)
        await page.get_by_label("Find in the log").fill("99999 a line")
        match = page.locator(".log-row[data-highlight=match]")
        await expect(match).to_contain_text("99999 a line")
        await expect(match.locator("mark")).to_have_text(["99999", " a line"])
        assert (await frame_times(page, "a text is found near the end"))["longest"] < MAX_PAUSE_MS
        after = await measure_memory(page)
        print(f"{max_rows} rows at most, {after.nodes} nodes, {(after.scripts - before.scripts) / 1e6:.1f} MB")
        assert after.scripts - before.scripts < MAX_MEMORY


@browser_test()
async def test_long_log_dom_order_equals_line_order(tmp_path: Path) -> None:
    """Screen readers and copied selections follow the DOM order."""
    write_hyperpod_preset(tmp_path / "presets", deploy="for i in $(seq 1 3000); do echo line $i; done")
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        for number in (1500, 1490, 1520, 1):
            await page.get_by_label("Go to line").fill(str(number))
            await page.keyboard.press("Enter")
            await expect(page.locator(".log-row[data-highlight=target] .log-text")).to_have_text(f"line {number}")
            numbers = await page.evaluate(LINE_NUMBERS)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@browser_test()
async def test_log_buffer_drops_oldest_lines_beyond_limit(tmp_path: Path) -> None:
    fill = """async (lines) => {
        const {LogBuffer} = await import('/static/js/log/buffer.js');
        const buffer = new LogBuffer();
        for (let start = 1; start <= lines; start += 1000) {
            buffer.append(Array.from({length: 1000}, (_, index) => `line ${start + index}\\n`).join(''));
        }
        return {kept: buffer.totalLines - buffer.droppedLines, total: buffer.totalLines,
            last: buffer.line(buffer.totalLines), first: buffer.line(buffer.droppedLines + 1),
            dropped: buffer.droppedLines};
    }"""
    async with running_server(tmp_path) as server, open_page(server.url) as page:
        result = await page.evaluate(fill, 5 * MAX_LINES)
        assert result["total"] == 5 * MAX_LINES
        assert MAX_LINES * 0.9 <= result["kept"] <= MAX_LINES
        assert result["last"] == f"line {5 * MAX_LINES}"
        assert result["first"] == f"line {result['dropped'] + 1}"
