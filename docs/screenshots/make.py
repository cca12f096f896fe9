#!/usr/bin/env python3
"""`make screenshots`: take the screenshots of the console in this folder, for each page, theme and width.

They show a real server, the embedded model, and a real job of a shell script. Requires Chromium and the console's
preferred fonts (apt-get install chromium fonts-inter fonts-jetbrains-mono).
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
THEMES = ("light", "dark")
SIZES = {360: 780, 1024: 768, 1920: 1080}
MAX_COLOURS = 256
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

MODELS = {
    "thoughtful": 'provider: scripted\nmodel: "pause:0.6; say:Red is the colour of fire and of ripe apples.'
    ' Green is that of moss after rain.\\nBlue is what the sky shows when it has nothing else to do; hang"\n'
    "capabilities: [text, image, stream]\n",
    "throttled": 'provider: scripted\nmodel: "fail:rate_limited"\ncapabilities: [text, image, stream]\n',
}
PRESET = """description: A rehearsal in plain shell
region: us-east-1
config: {global: {stackName: rehearsal}}
scripts: {deploy: hyperpod/rehearsal.sh}
"""
SCRIPT = r"""printf '\033[1mrehearsal\033[0m: creating CloudFormation changeset...\n'
printf '\033[32m\342\234\224  Synthesis time: 8.33s\033[0m\n'
for i in $(seq 0 10 100); do printf '\rPublishing assets %3d %%' $i; done; echo
n=0
for part in VPC InternetGateway PublicSubnet PrivateSubnet RouteTable NatGateway EksCluster NodeRole HyperPodRole; do
  printf 'rehearsal | %2d/14 | 7:08:02 PM | \033[33mCREATE_IN_PROGRESS\033[0m | AWS::EC2::VPC | %s\n' $n $part
  n=$((n + 1))
  printf 'rehearsal | %2d/14 | 7:08:04 PM | \033[32mCREATE_COMPLETE\033[0m    | AWS::EC2::VPC | %s\n' $n $part
done
printf 'rehearsal |  9/14 | 7:08:09 PM | \033[33mCREATE_IN_PROGRESS\033[0m | AWS::EKS::Addon | HyperPodCluster\n'
sleep 600
"""


@asynccontextmanager
async def run_server(folder: Path) -> AsyncIterator[str]:
    """Run a server with the shipped presets and a few more. Yields its URL."""
    presets = folder / "presets"
    shutil.copytree(ROOT / "presets", presets)
    for name, text in MODELS.items():
        (presets / "models" / f"{name}.yaml").write_text(text)
    (presets / "hyperpod" / "rehearsal.yaml").write_text(PRESET)
    (presets / "hyperpod" / "rehearsal.sh").write_text(SCRIPT)
    options = ["--port", "0", "--presets", str(presets), "--data", str(folder / "data"), "--drain", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "run.py"),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    stdout: Any = process.stdout
    try:
        yield (await stdout.readline()).decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()


async def prepare(page: Page, url: str, folder: Path) -> str:
    """Create a plan, a running job, and a rejected preset. Returns the job's URL."""
    await page.goto(f"{url}/#/clusters/deploy/small")
    await page.get_by_role("button", name="Dry run").click()
    await page.get_by_role("heading", name="Plan").wait_for(timeout=60_000)
    await page.goto(f"{url}/#/clusters/deploy/rehearsal")
    await page.get_by_role("button", name="Deploy …").click()
    await page.get_by_role("dialog").get_by_role("button", name="Deploy", exact=True).click()
    await page.get_by_text("HyperPodCluster").wait_for(timeout=60_000)
    job_url = page.url
    await send_prompt(page, url)
    path = folder / "presets" / "models" / "mine.yaml"
    path.write_text("provider: openai_compatible\nmodel: qwen3\nbase_url: http://127.0.0.1:8000/v1\nlimit: {}\n")
    return job_url


async def send_prompt(page: Page, url: str) -> None:
    """Send a prompt with a picture to three models: one completes, one keeps streaming, one fails."""
    await page.goto(f"{url}/#/playground")
    await page.get_by_label("Prompt", exact=True).fill("What is the total?")
    await page.locator("#media-input").set_input_files(ROOT / "docs" / "receipt.png")
    for name in ("smollm2", "thoughtful", "throttled"):
        await page.locator(f"input[name=model][value={name}]").check()
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".answer .badge")).to_have_text(["Done", "Answering", "Failed"], timeout=120_000)
    await page.locator(".answer-text", has_text="nothing else to do").wait_for()


async def save_screenshot(page: Page, name: str) -> None:
    await page.mouse.move(0, 0)
    await page.evaluate("document.activeElement.blur()")
    image = Image.open(BytesIO(await page.screenshot(animations="disabled"))).convert("RGB")
    reduce_colours(image).save(FOLDER / f"{name}.png", optimize=True)


def reduce_colours(image: Image.Image) -> Image.Image:
    """Reduce an image to its most frequent colours, to a third of its size; other pixels take the nearest colour."""
    pixels = np.asarray(image, dtype=np.int32)
    packed, colour_index, counts = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_inverse=True, return_counts=True)
    colours = np.stack((packed >> 16, packed >> 8 & 255, packed & 255), axis=1)
    palette = colours[np.argsort(-counts)[:MAX_COLOURS]]
    nearest = np.array([np.square(palette - colour).sum(axis=1).argmin() for colour in colours], dtype=np.uint8)
    indexed = Image.fromarray(nearest[colour_index].reshape(pixels.shape[:2]), "P")
    indexed.putpalette(palette.astype(np.uint8).tobytes())
    return indexed


async def take_screenshots(browser: Browser, url: str, job_url: str, theme: str, width: int) -> None:
    context = await browser.new_context(color_scheme=theme, viewport={"width": width, "height": SIZES[width]})  # type: ignore[arg-type] # one of THEMES
    page = await context.new_page()
    await send_prompt(page, url)
    await save_screenshot(page, f"playground-{theme}-{width}")
    await page.goto(job_url)
    await page.get_by_text("HyperPodCluster").wait_for()
    await save_screenshot(page, f"clusters-{theme}-{width}")
    await page.goto(f"{url}/#/models")
    await page.locator(".plot-box p", has_text="Median").first.wait_for()
    await save_screenshot(page, f"models-{theme}-{width}")
    await page.goto(f"{url}/#/playground")
    await page.get_by_role("button", name="Stop all").click()
    await context.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with run_server(folder) as url, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            job_url = await prepare(await browser.new_page(), url, folder)
            try:
                for theme in THEMES:
                    for width in SIZES:
                        await take_screenshots(browser, url, job_url, theme, width)
            finally:
                await cancel_job(await browser.new_page(), job_url)
            await browser.close()


async def cancel_job(page: Page, job_url: str) -> None:
    """Cancel the job, since a job outlives its server."""
    await page.goto(job_url)
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    await page.get_by_text("Cancelled", exact=True).first.wait_for()


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    asyncio.run(main())
