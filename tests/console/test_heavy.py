"""A page that is open for long: its heap does not grow on a busy feed, and a long log stays smooth and small."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml
from playwright.async_api import Page, expect

from tests.console.browser import ask, browsing, heap, in_browser
from tests.jobs import submit, write_hyperpod
from tests.serving import Server, says, serving

ROUNDS, WARM_UP = 10, 2  # of traffic; those before the heap has taken its size don't count
RUNS = 20  # that the page keeps: so many are made first
ROUND = 5.0  # seconds
GROWTH = 150_000  # bytes a round that count as flat: a leak of what a round brings would be some millions
LINES = 100_000
FRAME = 150  # milliseconds that the median frame may take, drawn without a graphics card on a machine that is busy
MOST_ROWS = 120  # in the page, of all lines
MOST_HEAP = 80_000_000  # bytes: the log itself is a tenth of that


async def make_busy(server: Server, page: Page, tmp_path: Path) -> None:
    """One round: presets that change, models that fail, answers of thousands of tokens."""
    await ask(page, "Go on", "long", "failing")
    async with asyncio.timeout(60):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_save_presets(tmp_path))
            tasks.create_task(expect(page.locator(".answer .badge")).to_have_text(["Failed", "Done"], timeout=50_000))
    for number in range(500):
        server.services.feed.append("presets", {"type": "preset", "kind": "model", "name": "m", "change": "changed"})
        server.services.feed.append("jobs", {"type": "job", **_job(number)})


async def _save_presets(tmp_path: Path) -> None:
    async with asyncio.timeout(ROUND + 5):
        for number in range(int(ROUND / 0.25)):
            path = tmp_path / "presets" / "models" / "m.yaml"
            path.write_text("provider: [" if number % 4 == 0 else yaml.safe_dump(says(f"say:{number}")))
            await asyncio.sleep(0.25)  # traffic of a known length, not a wait for something


def _job(number: int) -> dict[str, object]:
    return {
        "job_id": f"00000000-0000-4000-8000-{number:012}",
        "action": "deploy",
        "preset": "small",
        "status": "running",
        "dry_run": False,
        "created_at": f"2026-01-01T00:00:{number % 60:02}+00:00",
        "progress": {"done": number, "total": 500},
    }


@in_browser(500)
async def test_a_page_on_a_busy_feed_does_not_grow(tmp_path: Path) -> None:
    models = {"m": says("say:hi"), "long": says("chunks:5000"), "failing": says("fail:model_error")}
    sizes = []
    async with serving(tmp_path, models=models) as server, browsing(server.url) as page:
        for _ in range(RUNS):
            await ask(page, "Go on", "long", "failing")
            await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Done"])
        for number in range(ROUNDS):
            await make_busy(server, page, tmp_path)
            if number >= WARM_UP:
                sizes.append(await heap(page))
    slope = _slope(sizes)
    print(f"heap after {WARM_UP} rounds: {sizes}, slope {slope:.0f} bytes a round of {ROUND} s")
    assert slope < GROWTH, sizes


def _slope(values: list[int]) -> float:
    """Of the straight line through them, by least squares."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    above = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return above / sum((at - middle) ** 2 for at in range(len(values)))


SCROLL = """async () => {
    const rows = document.querySelector('.log-rows');
    const frame = () => new Promise(requestAnimationFrame);
    const times = [];
    let most = 0;
    rows.scrollTop = 0;
    let last = await frame();
    for (let step = 1; step <= 120; step += 1) {
        rows.scrollTop = rows.scrollHeight * step / 120;
        const now = await frame();
        times.push(now - last);
        last = now;
        most = Math.max(most, document.querySelectorAll('.log-row').length);
    }
    times.sort((one, other) => one - other);
    return {median: times[60], longest: times.at(-1), most};
}"""


@in_browser(240)
async def test_a_hundred_thousand_lines_scroll_smoothly_and_stay_small(tmp_path: Path) -> None:
    lines = f"seq 1 {LINES} | sed 's/.*/\\x1b[32m&\\x1b[0m a line of a log that is long, but no line of it is lost/'"
    write_hyperpod(tmp_path / "presets", deploy=lines)
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete", timeout=120_000)
        await expect(page.locator(".log-bar")).to_contain_text(f"{LINES:,} lines")
        measured = await page.evaluate(SCROLL)
        used = await heap(page)
        print(f"{LINES:,} lines: {measured}, heap {used:,} bytes")
        assert measured["median"] < FRAME
        assert measured["most"] < MOST_ROWS
        assert used < MOST_HEAP
        await page.get_by_label("Find in the log").fill("99999 a line")
        found = page.locator(".log-row[data-at=found]")
        await expect(found).to_contain_text("99999 a line")
        await expect(found.locator("mark")).to_have_text(["99999", " a line"])
