"""A page that stays open while much happens: answers, jobs with their logs, presets that are saved, for minutes.

What it holds is counted after each round of that, and must be as much after the last as after the first.
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

from tests.console.browser import Held, ask, browsing, held, in_browser
from tests.jobs import ended, submit, write_hyperpod
from tests.serving import Server, says, serving

MINUTES = 4.0  # of traffic
LEVEL = 1.0  # minutes of them after which the browser has compiled what it will, and its own lists are full
RUNS = 20  # that the page keeps: so many are made before
PRESETS = 20  # files that are saved at once
PAUSE = 0.5  # seconds between saves
CHUNKS, LINES = 5_000, 20_000  # that a round brings: about 1.6 MB of text
GROWTH = 10_000  # bytes a round that count as flat: less than a hundredth of what it brings
SPARE = 30  # nodes and listeners by which rounds may differ
LOG = f"seq 1 {LINES} | sed 's/.*/\\x1b[32m&\\x1b[0m a line like any other, of no use to anybody/'"
# In the CDK's words: each line is a change of the job, and a line of its log.
ON_AND_ON = """n=0; until [ -e {go} ]; do
  n=$((n % 200 + 1)); echo "busy | $n/200 | 7:08:04 PM | CREATE_COMPLETE | AWS::EC2::VPC | Part$n"; sleep 0.05
done"""


@asynccontextmanager
async def saving(folder: Path) -> AsyncIterator[None]:
    """Meanwhile presets are saved, over and over; one in four is wrong and is rejected. At the end all are right."""

    def save(number: int, *, wrong: bool) -> None:
        for name in range(PRESETS):
            is_wrong = wrong and (number + name) % 4 == 0
            text = "provider: [" if is_wrong else yaml.safe_dump(says(f"say:{number}"))
            (folder / f"saved{name}.yaml").write_text(text)

    async def go_on() -> None:
        for number in count():
            save(number, wrong=True)
            await asyncio.sleep(PAUSE)  # traffic of a known strength, not a wait for something

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        save(0, wrong=False)


async def answers(page: Page, text: str) -> None:
    await page.get_by_role("link", name="Playground", exact=True).click()
    # Not typed: the browser would keep it, to undo it.
    await page.get_by_label("Prompt", exact=True).evaluate("(box, text) => { box.value = text; }", text)
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".prompt")).to_have_text(text)
    await expect(page.locator(".answer .badge")).to_have_text(["Failed", "Done"], timeout=60_000)


async def logs(server: Server, page: Page, *jobs: str) -> None:
    """These logs, opened and left; the last is followed to its end."""
    for job in jobs:
        await page.goto(f"{server.url}/#/clusters/jobs/{job}")
        await expect(page.locator(".log-row").first).to_be_visible()
    await expect(page.locator(".log-bar")).to_contain_text(f"{LINES:,} lines", timeout=60_000)


async def changes(page: Page) -> None:
    await page.get_by_role("link", name="Models", exact=True).click()
    await expect(page.locator(".changes li").first).to_be_visible()


@in_browser(800)
async def test_a_page_on_a_busy_feed_does_not_grow(tmp_path: Path) -> None:
    models, presets = {"long": says(f"chunks:{CHUNKS}"), "failing": says("fail:model_error")}, tmp_path / "presets"
    write_hyperpod(presets, "long", deploy=LOG)
    write_hyperpod(presets, "busy", deploy=ON_AND_ON.format(go=tmp_path / "go"))
    samples: list[tuple[float, Held]] = []
    async with serving(tmp_path, models=models) as server, browsing(server.url) as page:
        await ask(page, "Go on", "long", "failing")
        for number in range(RUNS):
            await answers(page, f"Run {number}")
        jobs = [(await submit(server, preset=name))["job_id"] for name in ("busy", "long")]
        begun = time.monotonic()
        while time.monotonic() - begun < MINUTES * 60:
            async with saving(presets / "models"):
                await logs(server, page, *jobs)
                await changes(page)
                await answers(page, f"Round {len(samples)}")
            await expect(page.locator(".files .badge")).to_have_count(0)
            samples.append(((time.monotonic() - begun) / 60, await held(page)))
        (tmp_path / "go").touch()
        await ended(server, jobs[0])
    assert_flat(samples)


def assert_flat(samples: list[tuple[float, Held]]) -> None:
    for at, one in samples:
        print(f"{at:5.2f} min  {one}")
    level = [(at, one) for at, one in samples if at > LEVEL]
    minutes = level[-1][0] - level[0][0]
    growth = slope([(at, one.scripts) for at, one in level])
    print(f"{len(level)} rounds in {minutes:.1f} minutes: {growth / 1000:+.1f} kB a minute")
    assert growth * minutes / len(level) < GROWTH
    assert level[-1][1].nodes - level[0][1].nodes < SPARE
    assert level[-1][1].listeners - level[0][1].listeners < SPARE


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line through them, by least squares."""
    middle = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    return sum((x - middle) * (y - mean) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)
