"""Memory of a page that stays open for minutes of answers, jobs with logs, and saved presets.

It is measured after each round, and must not grow from the first to the last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import yaml
from playwright.async_api import Page, expect

from tests.console.browser import MemorySample, browser_test, measure_memory, open_page, send_prompt
from tests.jobs import submit, wait_for_job, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model

MINUTES = 4.0  # of load
WARM_UP_MINUTES = 1.0  # until the browser has compiled its code, and its lists are full
MAX_RUNS = 20  # that the page keeps: so many precede the load
PRESET_COUNT = 20  # files, saved together
SAVE_INTERVAL = 0.5  # seconds between saves
CHUNKS, LINES = 5_000, 20_000  # of a round: about 1.6 MB of text
MAX_GROWTH = 10_000  # bytes a round: less than a hundredth of its text
MAX_COUNT_GROWTH = 30  # of nodes and of listeners
PRINT_LOG = f"seq 1 {LINES} | sed 's/.*/\\x1b[32m&\\x1b[0m a line like any other, of no use to anybody/'"
# In the format of CDK: each line changes the job's progress.
PRINT_CDK_LINES = """n=0; until [ -e {go} ]; do
  n=$((n % 200 + 1)); echo "busy | $n/200 | 7:08:04 PM | CREATE_COMPLETE | AWS::EC2::VPC | Part$n"; sleep 0.05
done"""


@asynccontextmanager
async def save_presets(folder: Path) -> AsyncIterator[None]:
    """Save presets repeatedly within the block, one in four of them invalid. At its end all are valid."""

    def save_all(number: int, *, some_invalid: bool) -> None:
        for name in range(PRESET_COUNT):
            is_invalid = some_invalid and (number + name) % 4 == 0
            text = "provider: [" if is_invalid else yaml.safe_dump(scripted_model(f"say:{number}"))
            (folder / f"saved{name}.yaml").write_text(text)

    async def save_repeatedly() -> None:
        for number in count():
            save_all(number, some_invalid=True)
            await asyncio.sleep(SAVE_INTERVAL)  # the rate of the load; this waits for nothing

    task = asyncio.create_task(save_repeatedly())
    try:
        yield
    finally:
        task.cancel()
        save_all(0, some_invalid=False)


async def wait_for_answers(page: Page, text: str) -> None:
    await page.get_by_role("link", name="Playground", exact=True).click()
    # Not typed: the browser would keep typed text for undo.
    await page.get_by_label("Prompt", exact=True).evaluate("(box, text) => { box.value = text; }", text)
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".prompt")).to_have_text(text)
    await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Done"], timeout=60_000)


async def open_logs(server: RunningServer, page: Page, *jobs: str) -> None:
    """Open these logs one after another, and follow the last to its end."""
    for job in jobs:
        await page.goto(f"{server.url}/#/clusters/jobs/{job}")
        await expect(page.locator(".log-row").first).to_be_visible()
    await expect(page.locator(".log-bar")).to_contain_text(f"{LINES:,} lines", timeout=60_000)


async def open_models_page(page: Page) -> None:
    await page.get_by_role("link", name="Models", exact=True).click()
    await expect(page.locator(".changes li").first).to_be_visible()


@browser_test(800)
async def test_memory_of_busy_page_stays_flat(tmp_path: Path) -> None:
    models, presets = (
        {"long": scripted_model(f"chunks:{CHUNKS}"), "failing": scripted_model("fail:model_error")},
        tmp_path / "presets",
    )
    write_hyperpod_preset(presets, "long", deploy=PRINT_LOG)
    write_hyperpod_preset(presets, "busy", deploy=PRINT_CDK_LINES.format(go=tmp_path / "go"))
    samples: list[tuple[float, MemorySample]] = []
    async with running_server(tmp_path, models=models) as server, open_page(server.url) as page:
        await send_prompt(page, "Go on", "long", "failing")
        for number in range(MAX_RUNS):
            await wait_for_answers(page, f"Run {number}")
        jobs = [(await submit(server, preset=name))["job_id"] for name in ("busy", "long")]
        started_at = time.monotonic()
        while time.monotonic() - started_at < MINUTES * 60:
            async with save_presets(presets / "models"):
                await open_logs(server, page, *jobs)
                await open_models_page(page)
                await wait_for_answers(page, f"Round {len(samples)}")
            await expect(page.locator(".files .badge")).to_have_count(0)
            samples.append(((time.monotonic() - started_at) / 60, await measure_memory(page)))
        (tmp_path / "go").touch()
        await wait_for_job(server, jobs[0])
    assert_flat(samples)


def assert_flat(samples: list[tuple[float, MemorySample]]) -> None:
    for minute, sample in samples:
        print(f"{minute:5.2f} min  {sample}")
    judged = [(minute, sample) for minute, sample in samples if minute > WARM_UP_MINUTES]
    minutes = judged[-1][0] - judged[0][0]
    growth = slope([(minute, sample.scripts) for minute, sample in judged])
    print(f"{len(judged)} rounds in {minutes:.1f} minutes: {growth / 1000:+.1f} kB a minute")
    assert growth * minutes / len(judged) < MAX_GROWTH
    assert judged[-1][1].nodes - judged[0][1].nodes < MAX_COUNT_GROWTH
    assert judged[-1][1].listeners - judged[0][1].listeners < MAX_COUNT_GROWTH


def slope(points: list[tuple[float, float]]) -> float:
    """The slope of a line through points, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
